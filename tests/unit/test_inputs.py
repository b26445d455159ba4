"""Every kind of picture, and every kind of thing that is not one."""

import http.server
import logging
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from omgvision import inputs
from omgvision.errors import UserError
from omgvision.inputs import load_image, load_images

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture
def photo() -> Image.Image:
    """6 wide, 4 high: red on the left, green on the right."""
    image = Image.new("RGB", (6, 4), RED)
    image.paste(GREEN, (3, 0, 6, 4))
    return image


def assert_one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".gif"])
def test_lossless_files(photo, tmp_path, suffix):
    path = tmp_path / f"photo{suffix}"
    photo.save(path, **({"lossless": True} if suffix == ".webp" else {}))
    image = load_image(path)
    assert image.mode == "RGB"
    assert image.size == (6, 4)
    assert np.array_equal(np.asarray(image), np.asarray(photo))


def test_exif_orientation_is_applied(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view: the stored left side is shown on top
    photo.save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    image = np.asarray(load_image(tmp_path / "turned.jpg"))
    assert image.shape == (6, 4, 3)
    assert image[0, 0, 0] > 200
    assert image[0, 0, 1] < 60
    assert image[-1, 0, 1] > 200


def test_sixteen_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 257 * 10], [257 * 128, 65535]], dtype=np.uint16)
    for name in ("grey.png", "grey.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert np.asarray(load_image(tmp_path / name))[:, :, 0].tolist() == [[0, 10], [128, 255]]


def test_grey_palette_cmyk_and_bilevel(photo, tmp_path):
    photo.convert("L").save(tmp_path / "grey.png")
    photo.convert("P").save(tmp_path / "palette.png")
    photo.convert("CMYK").save(tmp_path / "cmyk.tif")
    photo.convert("1").save(tmp_path / "bilevel.png")
    for name in ("grey.png", "palette.png", "cmyk.tif", "bilevel.png"):
        image = load_image(tmp_path / name)
        assert image.mode == "RGB"
        assert image.size == (6, 4)
    assert np.asarray(load_image(tmp_path / "cmyk.tif"))[0, 0].tolist() == list(RED)
    assert np.asarray(load_image(tmp_path / "palette.png"))[0, 5].tolist() == list(GREEN)


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    rgba[1, 1] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    expected = [[[255, 0, 0], [255, 255, 255]], [[255, 255, 255], [127, 127, 127]]]
    assert np.asarray(load_image(tmp_path / "clear.png")).tolist() == expected
    assert np.asarray(load_image(rgba)).tolist() == expected


def test_animation_gives_its_first_frame(photo, tmp_path, caplog):
    photo.save(
        tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (6, 4), (0, 0, 9 * i)) for i in (1, 2)]
    )
    with caplog.at_level(logging.WARNING, logger="omgvision"):
        image = load_image(tmp_path / "moving.gif")
    assert np.array_equal(np.asarray(image), np.asarray(photo))
    assert "3 frames" in caplog.text


def test_arrays_and_tensors_agree(photo):
    array = np.asarray(photo)
    channels_first = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for source in (photo, array, array.astype(np.float32) / 255, array.astype(np.int64), array.astype(np.uint16) * 257):
        assert np.array_equal(np.asarray(load_image(source)), array)
    for source in (channels_first, channels_first.float() / 255, (channels_first.float() / 255).bfloat16()):
        assert np.array_equal(np.asarray(load_image(source)), array)
    assert load_image(array[:, :, 0]).size == (6, 4)
    assert load_image(array[:, :, :1]).size == (6, 4)
    assert np.asarray(load_image(array[:, :, 0] > 0)).max() == 255


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_sizes(size, tmp_path):
    Image.new("RGB", size).save(tmp_path / "extreme.png")
    assert load_image(tmp_path / "extreme.png").size == size


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (np.zeros((4, 4, 2), np.uint8), ("[4, 4, 2]", "[H, W, 3]")),
        (np.zeros((3, 40, 40), np.uint8), ("[3, 40, 40]", "transpose")),
        (np.zeros((0, 4, 3), np.uint8), ("[0, 4, 3]", "no pixels")),
        (np.full((4, 4, 3), 200.0), ("[0, 1]", "200")),
        (np.full((4, 4, 3), np.nan), ("NaN",)),
        (np.full((4, 4, 3), -1), ("-1",)),
        (np.zeros((4, 4, 3), complex), ("complex128",)),
        (torch.zeros(2, 3, 4, 4), ("[2, 3, 4, 4]", "list")),
        (torch.zeros(5, 4, 3), ("[5, 4, 3]",)),
        (3.5, ("float", "expected")),
        ([], ("empty", "at least one")),
        ([None], ("NoneType",)),
        ("", ("path is empty",)),
        ("ftp://example.org/a.jpg", ("ftp", "http")),
    ],
)
def test_unusable_values(source, parts):
    with pytest.raises(UserError) as error:
        list(load_images(source))
    assert_one_line(error, *parts)


def test_unusable_files(photo, tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image\n")
    photo.resize((600, 400)).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:1500])
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    (tmp_path / "folder").mkdir()
    for name, part in [
        ("missing.jpg", "does not exist"),
        ("empty.jpg", "0 bytes"),
        ("text.jpg", "not an image"),
        ("half.jpg", "truncated"),
        ("half.png", "truncated"),
        ("folder", "no images"),
        ("*.xyz", "matches the pattern"),
        ("x" * 5000, "cannot read"),
    ]:
        with pytest.raises(UserError) as error:
            load_image(tmp_path / name)
        assert_one_line(error, part)


def test_undecoded_pil_image_that_is_damaged(photo, tmp_path):
    photo.resize((600, 400)).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:1500])
    with pytest.raises(UserError) as error:
        load_image(Image.open(tmp_path / "half.jpg"))
    assert_one_line(error, "PIL image", "truncated")


def test_decompression_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_PIXELS", 1_000_000)
    Image.new("1", (2000, 1000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError) as error:
        load_image(tmp_path / "bomb.png")
    assert_one_line(error, "2000x1000", "megapixels")


def test_folder_is_sorted_lazy_and_skips_the_rest(photo, tmp_path):
    for name in ("b.png", "a.png", "c.PNG", ".hidden.png"):
        photo.save(tmp_path / name, format="png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "d.jpg").write_text("broken, but only when it is read")
    images = load_images(tmp_path)
    assert len(images) == 4
    assert not images.single
    assert images.names == ["a", "b", "c", "d"]
    assert next(iter(images)).image.size == (6, 4)
    assert images[1].name == "b"
    with pytest.raises(UserError):
        list(images)


def test_pattern_and_list(photo, tmp_path):
    for name in ("one/x.png", "two/x.png", "two/x-2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo.save(tmp_path / name)
    assert len(load_images(str(tmp_path / "**" / "*.png"))) == 3
    images = load_images([tmp_path / "one" / "x.png", tmp_path / "two", photo])
    assert len(set(images.names)) == len(images) == 4
    assert "x-2" in images.names
    assert "image" in images.names


def test_square_brackets_in_a_file_name(photo, tmp_path):
    photo.save(tmp_path / "shot[1].png")
    assert load_image(tmp_path / "shot[1].png").size == (6, 4)


@pytest.fixture
def server(photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    (tmp_path / "page.html").write_text("<html>")
    (tmp_path / "none.png").touch()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(tmp_path), **kwargs)

        def log_message(self, format, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def test_addresses(server, photo, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    images = load_images(f"{server}/photo.png?size=large")
    assert images.single
    assert images.names == ["photo"]
    assert np.array_equal(np.asarray(images[0].image), np.asarray(photo))
    for path, part in [("missing.png", "404"), ("page.html", "not an image"), ("none.png", "0 bytes")]:
        with pytest.raises(UserError) as error:
            load_image(f"{server}/{path}")
        assert_one_line(error, part)
    monkeypatch.setattr(inputs, "URL_MAX_BYTES", 20)
    with pytest.raises(UserError) as error:
        load_image(f"{server}/photo.png")
    assert_one_line(error, "more than")


def test_address_that_does_not_answer(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UserError) as error:
        load_image("http://127.0.0.1:9/photo.png")
    assert_one_line(error, "cannot download")


def test_one_image_expected(photo, tmp_path):
    photo.save(tmp_path / "a.png")
    photo.save(tmp_path / "b.png")
    with pytest.raises(UserError) as error:
        load_image(str(tmp_path))
    assert_one_line(error, "expected one image", "2 images")
