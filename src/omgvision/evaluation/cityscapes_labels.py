"""The labels of Cityscapes (Cordts et al. 2016; numbers and colours of cityscapesScripts' `helpers/labels.py`)."""

from dataclasses import dataclass
from typing import Final

IGNORED_TRAIN_ID = 255
MAX_ID = 33


@dataclass(frozen=True)
class CityscapesLabel:
    """What a value of a `labelIds` PNG means.

    Attributes:
        name, category: What it is, and the group that it belongs to.
        id, train_id: Value in the official files; place among the 19 evaluated classes, or 255.
        is_thing: Whether its objects are told apart (id 26, third object: 26002 in `instanceIds`).
        color: Red, green, blue.
    """

    name: str
    id: int
    train_id: int
    category: str
    is_thing: bool
    color: tuple[int, int, int]

    @property
    def evaluated(self) -> bool:
        """Whether ground-truth pixels of it count."""
        return self.train_id != IGNORED_TRAIN_ID


_NAMES: Final = {
    "void": "unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground",
    "flat": "road, sidewalk, parking, rail track",
    "construction": "building, wall, fence, guard rail, bridge, tunnel",
    "object": "pole, polegroup, traffic light, traffic sign",
    "nature": "vegetation, terrain",
    "sky": "sky",
    "human": "person, rider",
    "vehicle": "car, truck, bus, caravan, trailer, train, motorcycle, bicycle",
}
"""Category → names in the order of the ids."""
_EVALUATED: Final = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_COLORS: Final = (
    "000000000000000000000000000000"
    "6f4a00510051"
    "804080f423e8faaaa0e6968c"
    "46464666669cbe9999b4a5b496646496785a"
    "999999999999faaa1edcdc00"
    "6b8e2398fb98"
    "4682b4"
    "dc143cff0000"
    "00008e000046003c6400005a00006e0050640000e6770b20"
)
"""Six digits each."""


def _labels() -> tuple[CityscapesLabel, ...]:
    names = [(name, category) for category, names in _NAMES.items() for name in names.split(", ")]
    colors = list(zip(*[iter(bytes.fromhex(_COLORS))] * 3, strict=True))
    return tuple(
        CityscapesLabel(
            name=name,
            id=identity,
            train_id=_EVALUATED.index(identity) if identity in _EVALUATED else IGNORED_TRAIN_ID,
            category=category,
            is_thing=category in {"human", "vehicle"},
            color=color,
        )
        for identity, ((name, category), color) in enumerate(zip(names, colors, strict=True))
    )


CITYSCAPES_LABELS: Final = _labels()
"""By id, 0 to 33. The 35th, license plate (-1), is in no PNG file."""


def label_of(instance_ids: int) -> CityscapesLabel:
    """The label of a value of an `instanceIds` PNG: below 1000 the id itself (a group of objects), else thousands.

    Raises:
        ValueError: A value that stands for no label.
    """
    identity = instance_ids if instance_ids < 1000 else instance_ids // 1000
    if not 0 <= identity <= MAX_ID:
        raise ValueError(f"ids: expected Cityscapes ids 0 to {MAX_ID} (thousandfold for objects), got {instance_ids}")
    return CITYSCAPES_LABELS[identity]
