"""Pictures of results: coloured segments with their names, prompts, comparisons.

Pure functions of arrays and PIL images. Colours are stable: the same class index always has the same colour, the n-th
instance of a class the same shade of it, the same track of a video the same colour in every frame.
"""

import colorsys
import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

Color = tuple[int, int, int]
Point = tuple[float, float, bool]
Box = tuple[float, float, float, float]

POSITIVE: Color = (46, 204, 113)
NEGATIVE: Color = (235, 64, 52)
BOX: Color = (255, 196, 0)
_GOLDEN_ANGLE = 360 * (2 - (1 + math.sqrt(5)) / 2)
_POLE_GRID = 160  # label positions are looked for on masks of at most this many pixels a side


# -------------------------------------------------------------------------------------------------------------- colours


@lru_cache(maxsize=4096)
def segment_color(index: int, *, is_thing: bool = True, instance: int = 0) -> Color:
    """Colour of class `index`: hues a golden angle apart, vivid for things, muted for stuff.

    `instance` counts the things of one class in a picture (from 0); they differ in shade and a little in hue.
    """
    hue = 25 + index * _GOLDEN_ANGLE
    lightness = (0.70, 0.62, 0.78)[index % 3]
    chroma = 0.17 if is_thing else 0.075
    if instance:
        turn = instance * _GOLDEN_ANGLE / 360 % 1
        hue += 150 * (turn - 0.5)
        lightness = 0.58 + 0.26 * (instance * 0.7549 % 1)
    return _oklch_to_rgb(lightness, chroma, hue)


def identity_color(number: int) -> Color:
    """Colour of the object or track `number` (from 1), whatever its class: neighbouring numbers look unlike."""
    return segment_color(number + 11)  # so that the first is blue


def _oklch_to_rgb(lightness: float, chroma: float, hue: float) -> Color:
    """OKLCH -> sRGB, chroma reduced until it fits (matrices: B. Ottosson, "A perceptual color space", 2020)."""
    angle = math.radians(hue)
    while True:
        a, b = chroma * math.cos(angle), chroma * math.sin(angle)
        l_ = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        m_ = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        s_ = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = (
            4.0767416621 * l_ - 3.3077115913 * m_ + 0.2309699292 * s_,
            -1.2684380046 * l_ + 2.6097574011 * m_ - 0.3413193965 * s_,
            -0.0041960863 * l_ - 0.7034186147 * m_ + 1.7076147010 * s_,
        )
        if chroma < 1e-3 or all(-1e-3 <= value <= 1.001 for value in linear):
            break
        chroma *= 0.95
    red, green, blue = (round(255 * _gamma(min(max(value, 0.0), 1.0))) for value in linear)
    return red, green, blue


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def _with_lightness(color: Color, lightness: float) -> Color:
    hue, _, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in color))
    red, green, blue = (round(255 * c) for c in colorsys.hls_to_rgb(hue, lightness, saturation))
    return red, green, blue


# ------------------------------------------------------------------------------------------------------------- segments


def draw_segments(
    image: Image.Image,
    masks: Iterable[np.ndarray],
    *,
    colors: Sequence[Color],
    labels: Sequence[str] = (),
    opacity: float = 0.5,
) -> Image.Image:
    """Lay coloured segments over a picture, with thin contours and, where they find room, their names.

    Args:
        image: RGB.
        masks: bool [H, W] each, as large as the image; consumed one at a time, later ones lie on top.
        colors: one a mask.
        labels: one a mask, "" for none; or no labels at all.
        opacity: of the fill, 0 to 1.

    Returns:
        A new RGB image of the same size.

    Raises:
        ValueError: a mask has another size than the image, or the numbers of masks, colours and labels differ.
    """
    width, height = image.size
    scale = math.sqrt(width * height)
    font = _font(max(11, round(scale / 42)))
    top = np.zeros((height, width), dtype=np.int32)  # which mask is seen, counted from 1
    tags: list[_Tag] = []
    count = 0
    for count, mask in enumerate(masks, start=1):
        if mask.shape != (height, width):
            raise ValueError(f"mask {count - 1} is {mask.shape[1]}x{mask.shape[0]}, the image is {width}x{height}")
        if count > len(colors):
            raise ValueError(f"expected one colour for each mask, got only {len(colors)}")
        window = _window(mask)
        if window is None:
            continue
        np.copyto(top[window], count, where=mask[window])
        if labels:
            tags.append(_Tag.place(labels[count - 1], colors[count - 1], mask[window], window, font))
    if len(colors) != count or len(labels) not in {0, count}:
        raise ValueError(f"got {count} masks, {len(colors)} colours and {len(labels)} labels: expected as many of each")

    picture = image.convert("RGB")
    fill = Image.fromarray(np.array([(0, 0, 0), *colors], dtype=np.uint8)[top])
    fill_alpha = Image.fromarray(np.where(top > 0, np.uint8(round(255 * opacity)), np.uint8(0)))
    line = Image.fromarray(np.array([(0, 0, 0), *(_with_lightness(c, 0.82) for c in colors)], dtype=np.uint8)[top])
    thickness = max(1, round(scale / 500))
    line_alpha = Image.fromarray(np.where(_rims(top, thickness), np.uint8(235), np.uint8(0)))
    picture = Image.composite(fill, picture, fill_alpha)
    picture = Image.composite(line, picture, line_alpha.filter(ImageFilter.GaussianBlur(0.4 * thickness)))
    return _draw_tags(picture, tags, font)


def _rims(top: np.ndarray, thickness: int) -> np.ndarray:
    """Pixels of numbered regions [H, W] at most `thickness` away from another number; 0 has no rim itself."""
    lowest = highest = top
    for axis in (0, 1):
        lowest = ndimage.minimum_filter1d(lowest, 2 * thickness + 1, axis=axis, mode="nearest")
        highest = ndimage.maximum_filter1d(highest, 2 * thickness + 1, axis=axis, mode="nearest")
    return (top > 0) & (lowest != highest)


def _window(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Bounding box of a mask, one pixel wider where the image goes on: no contour along the border of the image."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    height, width = mask.shape
    return (
        slice(max(rows[0] - 1, 0), min(rows[-1] + 2, height)),
        slice(max(columns[0] - 1, 0), min(columns[-1] + 2, width)),
    )


class _Tag:
    """A name, and the places in its segment where it could stand, best first."""

    def __init__(self, text: str, color: Color, spots: list[tuple[float, float]], area: int, room: float) -> None:
        self.text, self.color, self.spots, self.area, self.room = text, color, spots, area, room

    @classmethod
    def place(
        cls, text: str, color: Color, mask: np.ndarray, window: tuple[slice, slice], font: ImageFont.FreeTypeFont
    ) -> "_Tag":
        if not text:
            return cls(text, color, [], 0, 0.0)
        # Text is wide: in a mask squeezed by the text's proportions, the pole (the point farthest from the outline) is
        # where the text fits best.
        left, top, right, bottom = font.getbbox(text)
        aspect = max((right - left) / max(bottom - top, 1), 1.0)
        height, width = mask.shape
        shrink = min(1.0, _POLE_GRID / max(height, width / aspect))
        grid_width, grid_height = max(1, round(width / aspect * shrink)), max(1, round(height * shrink))
        small = np.asarray(Image.fromarray(mask).resize((grid_width, grid_height), Image.Resampling.NEAREST))
        # A margin of background, so that the borders of the window count as outline.
        distance = np.asarray(ndimage.distance_transform_edt(np.pad(small, 1)))[1:-1, 1:-1]
        spots, room = [], 0.0
        rows, columns = np.mgrid[: distance.shape[0], : distance.shape[1]]
        inside = small.nonzero()
        middle = (inside[0].mean(), inside[1].mean()) if inside[0].size else (0.0, 0.0)
        from_middle = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2
        for _ in range(4):
            radius = float(distance.max())
            if radius <= 0 or radius < 0.4 * room * shrink:
                break
            # In wide places many points are equally far from the outline: the most central one looks best.
            central = np.where(distance >= 0.95 * radius, from_middle, np.inf)
            row, column = np.unravel_index(int(central.argmin()), central.shape)
            room = max(room, radius / shrink)
            spots.append(
                (
                    window[1].start + (column + 0.5) / grid_width * width,
                    window[0].start + (row + 0.5) / grid_height * height,
                )
            )
            distance[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = 0
        return cls(text, color, spots, int(mask.sum()), room)


def _draw_tags(image: Image.Image, tags: list[_Tag], font: ImageFont.FreeTypeFont) -> Image.Image:
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    width, height = image.size
    pad = max(2, round(font.size * 0.28))
    taken: list[Box] = []
    for tag in sorted(tags, key=lambda tag: -tag.area):
        # A name much taller than its segment would hide it and its neighbours.
        if not tag.spots or tag.room < 0.3 * font.size:
            continue
        half_width, half_height = font.getlength(tag.text) / 2 + pad, font.size * 0.5 + pad * 0.6
        for x, y in tag.spots:
            x = min(max(x, half_width + 1), max(width - half_width - 1, width / 2))
            y = min(max(y, half_height + 1), max(height - half_height - 1, height / 2))
            box = (x - half_width, y - half_height, x + half_width, y + half_height)
            if not any(_overlap(box, other) for other in taken):
                taken.append(box)
                draw.rounded_rectangle(box, radius=half_height * 0.55, fill=(*_with_lightness(tag.color, 0.2), 205))
                draw.text((x, y), tag.text, font=font, fill=(255, 255, 255, 255), anchor="mm")
                break
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ValueError("labels need a Pillow with FreeType support (every wheel on PyPI has it)")
    return font


# -------------------------------------------------------------------------------------------------------------- prompts


def draw_prompts(
    image: Image.Image,
    *,
    points: Iterable[Point] = (),
    boxes: Iterable[Box] = (),
) -> Image.Image:
    """Mark points (x, y, positive) in green or red and boxes (x0, y0, x1, y1) in amber; all in pixels of the image."""
    # Drawn at twice the size and shrunk, which gives smooth circles; everything outside the marks stays as it was.
    zoom = 2
    width, height = image.size
    layer = Image.new("RGBA", (width * zoom, height * zoom), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    unit = max(1.0, math.sqrt(width * height) / 300) * zoom
    for x0, y0, x1, y1 in boxes:
        corners = [value * zoom for value in (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))]
        draw.rectangle(corners, outline=(0, 0, 0, 160), width=round(2.2 * unit))
        inner = [corners[0] + 0.6 * unit, corners[1] + 0.6 * unit, corners[2] - 0.6 * unit, corners[3] - 0.6 * unit]
        if inner[0] < inner[2] and inner[1] < inner[3]:
            draw.rectangle(inner, outline=(*BOX, 255), width=max(1, round(unit)))
    for x, y, positive in points:
        x, y, radius = x * zoom, y * zoom, 4.2 * unit
        color = POSITIVE if positive else NEGATIVE
        for margin, fill in ((1.7, (0, 0, 0, 110)), (1.0, (255, 255, 255, 255)), (0.0, (*color, 255))):
            r = radius + margin * unit
            draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        arm, thick = 2.1 * unit, max(1.0, 0.45 * unit)
        draw.rectangle((x - arm, y - thick, x + arm, y + thick), fill=(255, 255, 255, 255))
        if positive:
            draw.rectangle((x - thick, y - arm, x + thick, y + arm), fill=(255, 255, 255, 255))
    layer = layer.resize(image.size, Image.Resampling.BOX)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


# ---------------------------------------------------------------------------------------------------------------- words


def draw_words(image: Image.Image, pieces: Sequence[tuple[str, Color | None]]) -> Image.Image:
    """A text below a picture, as wide as it; pieces with a colour stand on that colour.

    Returns:
        A new RGB image, higher by the lines that the text needs.
    """
    font = _font(max(13, round(math.sqrt(image.width * image.height) / 30)))
    margin, line = round(font.size * 0.7), round(font.size * 1.55)
    placed: list[tuple[float, int, str, Color | None]] = []
    x, row = 0.0, 0
    room = max(image.width - 2 * margin, 1)
    for text, color in pieces:
        for word in re.findall(r"\n|\s*[^\s]+|\s+$", text):
            if word == "\n" or (x and x + font.getlength(word) > room):
                x, row, word = 0.0, row + 1, word.lstrip()
            if word:
                placed.append((x, row, word, color))
                x += font.getlength(word)
    sheet = Image.new("RGB", (image.width, image.height + 2 * margin + (row + 1) * line), (255, 255, 255))
    sheet.paste(image, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for start, row, word, color in placed:
        left, middle = margin + start, image.height + margin + (row + 0.5) * line
        if color is not None:
            # The space before the first word of a phrase is not part of it.
            indent = font.getlength(word[: len(word) - len(word.lstrip())])
            box = (
                left + indent - 1,
                middle - 0.66 * font.size,
                left + font.getlength(word) + 1,
                middle + 0.66 * font.size,
            )
            draw.rectangle(box, fill=_with_lightness(color, 0.8))
        draw.text((left, middle), word, font=font, fill=(25, 25, 25), anchor="lm")
    return sheet


# ---------------------------------------------------------------------------------------------------------- comparisons


def side_by_side(images: Sequence[Image.Image], *, titles: Sequence[str] = ()) -> Image.Image:
    """Pictures in one row, scaled to the height of the first, with optional titles above them."""
    return grid(images, columns=len(images), titles=titles)


def grid(images: Sequence[Image.Image], *, columns: int, titles: Sequence[str] = (), gap: int = 8) -> Image.Image:
    """Pictures in rows of `columns`, all as high as the first; titles, if given, one a picture."""
    if not images:
        raise ValueError("a grid needs at least one image")
    if columns < 1:
        raise ValueError(f"a grid needs at least one column, got {columns}")
    if len(titles) not in {0, len(images)}:
        raise ValueError(f"expected a title for each of the {len(images)} images, got {len(titles)}")
    height = images[0].height
    cells = [
        image.convert("RGB").resize((max(1, round(image.width * height / image.height)), height)) for image in images
    ]
    font = _font(max(11, round(height / 22)))
    title_height = round(font.size * 1.7) if titles else 0
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    total_width = max(sum(cell.width for cell in row) + gap * (len(row) + 1) for row in rows)
    total_height = len(rows) * (height + title_height + gap) + gap
    sheet = Image.new("RGB", (total_width, total_height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    y = gap
    for number, row in enumerate(rows):
        x = gap
        for column, cell in enumerate(row):
            if titles:
                place = (x + cell.width / 2, y + title_height / 2)
                draw.text(place, titles[number * columns + column], font=font, fill=(30, 30, 30), anchor="mm")
            sheet.paste(cell, (x, y + title_height))
            x += cell.width + gap
        y += height + title_height + gap
    return sheet
