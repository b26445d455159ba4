"""What overlays promise: size, stability, distinct colours, nothing painted where there is no segment."""

import numpy as np
import pytest
from PIL import Image

from omgvision.visualization import draw_prompts, draw_segments, grid, segment_color, side_by_side


@pytest.fixture
def grey() -> Image.Image:
    return Image.new("RGB", (120, 80), (128, 128, 128))


def square(top: int, left: int, size: int) -> np.ndarray:
    mask = np.zeros((80, 120), dtype=bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_colours_are_distinct_and_stable():
    colors = np.array([segment_color(index) for index in range(40)], dtype=float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert distances[~np.eye(40, dtype=bool)].min() > 8
    instances = np.array([segment_color(3, instance=index) for index in range(8)], dtype=float)
    distances = np.linalg.norm(instances[:, None] - instances[None], axis=-1)
    assert distances[~np.eye(8, dtype=bool)].min() > 15
    assert segment_color(7) == segment_color(7, is_thing=True, instance=0)


def test_stuff_is_muted():
    for index in range(20):
        thing, stuff = segment_color(index), segment_color(index, is_thing=False)
        assert max(stuff) - min(stuff) < max(thing) - min(thing)


def test_only_segments_change(grey):
    mask = square(20, 30, 40)
    result = draw_segments(grey, [mask], colors=[(255, 0, 0)])
    assert result.size == grey.size
    changed = (np.asarray(result) != 128).any(axis=-1)
    outside = changed & ~mask
    assert outside[:17].sum() == outside[:, :27].sum() == 0
    assert changed[40, 50]
    assert np.asarray(result)[40, 50].tolist() == [192, 64, 64]


def test_image_itself_is_untouched(grey):
    before = grey.tobytes()
    draw_segments(grey, [square(0, 0, 50)], colors=[(0, 0, 255)], labels=["sky"])
    draw_prompts(grey, points=[(5, 5, True)], boxes=[(1, 1, 30, 30)])
    assert grey.tobytes() == before


def test_names_are_written(grey):
    mask = square(10, 10, 60)
    plain = draw_segments(grey, [mask], colors=[(0, 200, 0)])
    named = draw_segments(grey, [mask], colors=[(0, 200, 0)], labels=["cat"])
    difference = (np.asarray(plain) != np.asarray(named)).any(axis=-1)
    assert difference.any()
    rows, columns = np.nonzero(difference)
    assert abs(rows.mean() - 40) < 6
    assert abs(columns.mean() - 40) < 6


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_extreme_sizes(size):
    image = Image.new("RGB", size)
    mask = np.ones((size[1], size[0]), dtype=bool)
    empty = np.zeros_like(mask)
    result = draw_segments(image, [mask, empty], colors=[(9, 9, 9), (1, 2, 3)], labels=["a long name", "nothing"])
    assert result.size == size
    assert draw_prompts(image, points=[(0, 0, False)], boxes=[(0, 0, 1, 1)]).size == size


def test_numbers_must_agree(grey):
    with pytest.raises(ValueError, match="as many of each"):
        draw_segments(grey, [square(0, 0, 5)], colors=[(1, 1, 1), (2, 2, 2)])
    with pytest.raises(ValueError, match="one colour"):
        draw_segments(grey, [square(0, 0, 5)], colors=[])
    with pytest.raises(ValueError, match="5x4"):
        draw_segments(grey, [np.zeros((4, 5), bool)], colors=[(1, 1, 1)])


def test_prompts_are_drawn_in_their_colours(grey):
    marked = np.asarray(draw_prompts(grey, points=[(30, 40, True), (90, 40, False)])).astype(int)
    green, red = marked[35:45, 25:35].reshape(-1, 3), marked[35:45, 85:95].reshape(-1, 3)
    assert (green[:, 1] - green[:, 0]).max() > 100
    assert (red[:, 0] - red[:, 1]).max() > 100


def test_grids(grey):
    sheet = grid([grey] * 5, columns=2, titles=list("abcde"))
    assert sheet.width == 2 * 120 + 3 * 8
    assert side_by_side([grey, grey.resize((60, 40))]).height == 80 + 2 * 8
    with pytest.raises(ValueError, match="at least one image"):
        grid([], columns=1)
    with pytest.raises(ValueError, match="a title"):
        grid([grey], columns=1, titles=["a", "b"])
