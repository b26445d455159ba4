"""Lines of what is pointed at, and files that come and go. Neither needs the extra `serve`."""

import pytest

from omgvision import UserError
from omgvision.results import Result
from omgvision.serving.downloads import Downloads
from omgvision.serving.pointing import read_pointed, with_box, with_click, without_last


def test_lines_grow_click_by_click_and_are_read_back():
    text = with_click("", 3, 4)
    text = with_click(text, 5, 6, beside=True)
    text = with_box(text, (20, 30), (10, 12))
    assert text == "3,4\n5,6,0\n10,12,20,30"
    pointed = read_pointed(f"\n{text}\n")
    assert (pointed.points, pointed.labels, pointed.boxes) == ([(3, 4), (5, 6)], [1, 0], [(10, 12, 20, 30)])
    assert without_last(text) == "3,4\n5,6,0"
    assert not read_pointed(without_last("3,4"))


@pytest.mark.parametrize("line", ["x", "1", "1,2,3", "1,2,3,4,5", "1,,2"])
def test_other_lines_are_refused(line):
    with pytest.raises(UserError, match="expected x,y"):
        read_pointed(line)


def test_only_the_last_downloads_stay(photo, tmp_path):
    downloads = Downloads(tmp_path, keep=2)
    result = Result.from_masks([], [], task="click", image=photo)
    written = [downloads.write(result) for _ in range(3)]
    assert [name.rsplit("/", 1)[-1] for name in written[0]] == ["overlay.png", "panoptic.png", "result.json"]
    assert len(list(tmp_path.iterdir())) == 2
    assert not (tmp_path / written[0][0]).exists() and (tmp_path / written[2][0]).exists()
