"""Points and boxes as lines of text that people see and edit: what a page keeps of what was clicked.

"x,y" is a point on the object, "x,y,0" one beside it, "x0,y0,x1,y1" a box. All points are of one object.
"""

from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Pointed:
    """What the lines say; `labels` 1 or 0, one a point."""

    points: list[tuple[float, float]]
    labels: list[int]
    boxes: list[tuple[float, float, float, float]]

    def __bool__(self) -> bool:
        return bool(self.points or self.boxes)


def read_pointed(text: str) -> Pointed:
    """Read such lines; empty ones do not count.

    Raises:
        UserError: a line is of another form.
    """
    pointed = Pointed([], [], [])
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            values = [float(part) for part in line.split(",")]
        except ValueError:
            values = []
        if len(values) == 4:
            pointed.boxes.append((values[0], values[1], values[2], values[3]))
        elif len(values) == 2 or (len(values) == 3 and values[2] in (0, 1)):
            pointed.points.append((values[0], values[1]))
            pointed.labels.append(int(values[2]) if len(values) == 3 else 1)
        else:
            raise UserError(f"pointed at: expected x,y or x,y,0 or x0,y0,x1,y1 in a line, got {line.strip()[:40]!r}")
    return pointed


def with_click(text: str, x: int, y: int, *, beside: bool = False) -> str:
    """The lines with one point more."""
    return _with_line(text, f"{x},{y},0" if beside else f"{x},{y}")


def with_box(text: str, corner: tuple[int, int], opposite: tuple[int, int]) -> str:
    """The lines with one box more, between two corners in any order."""
    left, right = sorted((corner[0], opposite[0]))
    top, bottom = sorted((corner[1], opposite[1]))
    return _with_line(text, f"{left},{top},{right},{bottom}")


def without_last(text: str) -> str:
    """The lines without the last one."""
    return "\n".join(text.strip().splitlines()[:-1])


def _with_line(text: str, line: str) -> str:
    return f"{text.rstrip()}\n{line}".lstrip()
