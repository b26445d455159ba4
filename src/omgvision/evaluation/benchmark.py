"""What a row of a table of benchmarks is: where its data lie, how the original was measured, what was published."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from omgvision.errors import UserError
from omgvision.evaluation.runner.task import Task

ConfigT = TypeVar("ConfigT")
MeasuredT = TypeVar("MeasuredT")
SettingsT = TypeVar("SettingsT")


@dataclass(frozen=True)
class Published:
    """A number of a paper.

    Attributes:
        number: What it is called in our reports.
        value: As a fraction; of MME points.
        model: Which model it is of.
        confirmed: Read in a paper.
        source: Where.
        noise: Of the original between two runs, as a fraction; None = nobody said.
    """

    number: str
    value: float
    model: str
    confirmed: bool
    source: str
    noise: float | None = None


@dataclass(frozen=True)
class Row(Generic[MeasuredT, ConfigT, SettingsT]):
    """A data set, a task and what was published.

    Attributes:
        name: As in `omg evaluate NAME`.
        title: For people.
        folders: What the data set's folder may be called in a folder of many.
        layout: What must lie in it; of several in one place, one.
        settings: How the original was measured.
        task: (root, what is measured, settings) → the task.
        published: Of the original.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    layout: tuple[str | tuple[str, ...], ...]
    settings: SettingsT
    task: Callable[[Path, MeasuredT, SettingsT], Task]
    published: tuple[Published, ...] = ()

    def locate(self, data: Path) -> Path:
        """The data set's folder: `data` itself or one of `folders` in it.

        Raises:
            UserError: Neither has what `layout` says.
        """
        places = [data, *(data / folder for folder in self.folders)]
        for place in places:
            if not self.missing(place):
                return place
        # The place that lacks least is the one that was meant.
        best = min(places, key=lambda place: (len(self.missing(place)), places.index(place)))
        expected = ", ".join(_one_of(one) for one in self.layout)
        raise UserError(
            f"{self.name}: expected {expected} in {data}, or in {' or '.join(self.folders)} there; got no"
            f" {self.missing(best)[0]} in {best}: give the folder of {self.title} as --data"
        )

    def missing(self, place: Path) -> list[str]:
        """What of `layout` is not there."""
        return [_one_of(one) for one in self.layout if not any((place / name).exists() for name in _names(one))]

    @abstractmethod
    def original_of(self, config: ConfigT) -> str | None:
        """Which of the original's models has these sizes; None = another."""

    @abstractmethod
    def published_for(self, config: ConfigT) -> list[dict[str, Any]]:
        """The numbers to show beside those of a model."""


def _names(one: str | tuple[str, ...]) -> tuple[str, ...]:
    return (one,) if isinstance(one, str) else one


def _one_of(one: str | tuple[str, ...]) -> str:
    return " or ".join(_names(one))


def first_of(root: Path, names: tuple[str, ...]) -> Path:
    """The one of the names of a layout that is there."""
    return next((root / name for name in names if (root / name).exists()), root / names[0])
