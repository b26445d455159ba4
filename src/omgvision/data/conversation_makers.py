"""Conversations made of annotations: a picture with segments is asked about in ways that its segments answer.

Letters: N segments, H, W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from . import conversation_words as words
from .conversation_words import capitalised, counted, grounded, listed, plural, spoken, with_article
from .conversations import Conversation, Outline, Prompt, Turn, no_masks
from .prompts import mask_boxes, random_points
from .sample import Sample, SampleDataset
from .synthetic_objects import COLOURS
from .transforms import Augmentation

SMALLEST_PART = 0.003
"""Of a picture: what is smaller is not asked about, and makes no caption."""
CLEAR_STEP = 0.08
"""Of a picture's side: so far an object must lie beyond its likes to be "on the left"."""
CLEAR_RATIO = 1.6
"""Of areas: so much larger than its likes must be what is "the largest"."""
CLEAR_SHARE = 0.6
"""Of an object's pixels: so many must be of one colour for it to have that colour."""
MOST_COUNTED = 10
MOST_NAMED = 5
"""Kinds in a caption: people name the main things, and of a longer list a small model learns to go on and on."""
SPREAD = 7919
"""A prime, by which neighbours get different numbers of turns."""


@dataclass(frozen=True)
class Made:
    """A turn with the masks of its answer and the prompts of its question."""

    turn: Turn
    masks: Sequence[Tensor] = ()
    prompts: Sequence[Prompt] = ()


class Scene:
    """What makers need to know of a picture.

    Attributes:
        sample: the picture with its segments; those of unknown class and small ones are left out.
        nouns: N names, as people say them.
        countable: N times whether it is a thing.
        captions: sentences that people wrote about it; may be empty.
    """

    def __init__(self, sample: Sample, captions: Sequence[str] = ()) -> None:
        height, width = sample.size
        large = sample.areas() >= SMALLEST_PART * height * width
        self.complete = bool(large.all())
        self.sample = sample.keeping(large & (sample.labels >= 0))
        labels = self.sample.labels.tolist()
        self.nouns = [spoken(sample.names[label]) for label in labels]
        self.countable = [sample.things[label] for label in labels]
        present = set(sample.labels.tolist())
        self.absent = [
            (spoken(name), sample.things[label]) for label, name in enumerate(sample.names) if label not in present
        ]
        self.captions = list(captions)

    @cached_property
    def masks(self) -> Tensor:
        """Bool [N, H, W]."""
        return self.sample.masks

    @cached_property
    def centres(self) -> np.ndarray:
        """Float [N, 2], mean x, y of each segment as shares of the picture's sides."""
        masks = self.masks.float()
        areas = masks.sum((1, 2))
        height, width = self.sample.size
        x = masks.sum(1) @ torch.arange(width).float() / areas / width
        y = masks.sum(2) @ torch.arange(height).float() / areas / height
        return torch.stack((x, y), dim=1).numpy()

    @cached_property
    def colours(self) -> list[str | None]:
        """Of each segment: what its name or most of its pixels say; None where neither does."""
        pixels = self.sample.image.permute(1, 2, 0)
        return [
            colour_in(noun) or colour_of(pixels[mask].numpy())
            for noun, mask in zip(self.nouns, self.masks, strict=True)
        ]

    def alike(self, index: int) -> list[int]:
        """The other segments of the same name."""
        return [other for other, noun in enumerate(self.nouns) if noun == self.nouns[index] and other != index]

    def counts(self) -> dict[str, list[int]]:
        """Name → its segments, those with most pixels first."""
        groups: dict[str, list[int]] = {}
        for index in self.sample.areas().argsort(descending=True).tolist():
            groups.setdefault(self.nouns[index], []).append(index)
        return groups

    def expressions(self, index: int) -> list[str]:
        """Ways to say which segment is meant, none of which fits another one: "dog", "dog on the left", "red dog"."""
        noun, others = self.nouns[index], self.alike(index)
        if not others:
            return [noun]
        found = []
        for axis, low, high in ((0, "on the left", "on the right"), (1, "at the top", "at the bottom")):
            own, theirs = self.centres[index, axis], self.centres[others, axis]
            if own < theirs.min() - CLEAR_STEP:
                found.append(f"{noun} {low}")
            elif own > theirs.max() + CLEAR_STEP:
                found.append(f"{noun} {high}")
        areas = self.sample.areas()
        if areas[index] > CLEAR_RATIO * areas[others].max():
            found.append(f"largest {noun}")
        elif CLEAR_RATIO * areas[index] < areas[others].min():
            found.append(f"smallest {noun}")
        colour = self.colours[index]
        if colour and colour_in(noun) is None and all(self.colours[one] not in (None, colour) for one in others):
            found.append(f"{colour} {noun}")
        return found


T = TypeVar("T")
Maker = Callable[[Scene, np.random.Generator], Made | None]
"""Scene → a question with its answer; None where the scene has nothing to ask for."""


def caption(scene: Scene, generator: np.random.Generator) -> Made | None:
    """One of the captions that people wrote; without any, what there is and how many of it."""
    if scene.captions:
        text = _one(scene.captions, generator).strip()
    elif scene.nouns:
        text = capitalised(listed(_kinds(scene)[:MOST_NAMED])) + "."
    else:
        return None
    return Made(Turn(_one(words.CAPTION_QUESTIONS, generator), text))


def grounded_caption(scene: Scene, generator: np.random.Generator) -> Made | None:
    """What there is and how many of it, the largest `MOST_NAMED` kinds, with a mask for each."""
    if not scene.nouns:
        return None
    groups = dict(list(scene.counts().items())[:MOST_NAMED])
    parts = _kinds(scene)[:MOST_NAMED]
    parts[0] = capitalised(parts[0])
    answer = listed([grounded(part) for part in parts]) + "."
    masks = [scene.masks[members].any(0) for members in groups.values()]
    return Made(Turn(_one(words.GROUNDED_QUESTIONS, generator), answer), masks)


def count(scene: Scene, generator: np.random.Generator) -> Made | None:
    """How many of a kind of thing; only where small ones were not left out, and not beyond `MOST_COUNTED`."""
    groups = {
        noun: members
        for noun, members in scene.counts().items()
        if scene.countable[members[0]] and len(members) <= MOST_COUNTED
    }
    if not groups or not scene.complete:
        return None
    number = _one(sorted({len(members) for members in groups.values()}), generator)  # else it were one nearly always
    noun = _one([noun for noun, members in groups.items() if len(members) == number], generator)
    question = _one(words.COUNT_QUESTIONS, generator).format(plural(noun))
    return Made(Turn(question, capitalised(words.NUMBERS[number]) + "."))


def presence(scene: Scene, generator: np.random.Generator) -> Made | None:
    """Whether there is something: as often what is there as what is not."""
    there = generator.random() < 0.5
    choices = sorted(set(zip(scene.nouns, scene.countable, strict=True))) if there else scene.absent
    if not choices:
        return None
    noun, countable = choices[int(generator.integers(len(choices)))]
    question = _one(words.PRESENCE_QUESTIONS, generator).format(with_article(noun) if countable else noun)
    return Made(Turn(question, "Yes." if there else "No."))


def referring(scene: Scene, generator: np.random.Generator) -> Made | None:
    """One object by its class, place, size or colour, and its mask."""
    choices = [
        (index, expression)
        for index in range(len(scene.nouns))
        if scene.countable[index]
        for expression in scene.expressions(index)
    ]
    if not choices:
        return None
    index, expression = choices[generator.integers(len(choices))]
    question = _one(words.SEGMENT_QUESTIONS, generator).format(f"the {expression}")
    return Made(Turn(question, grounded(f"The {expression}") + "."), [scene.masks[index]])


def semantic(scene: Scene, generator: np.random.Generator) -> Made | None:
    """All of a class, things and stuff, as the published weights were asked for it."""
    groups = scene.counts()
    if not groups:
        return None
    noun = _one(list(groups), generator)
    question = _one(words.SEGMENT_QUESTIONS[:2], generator).format(noun)
    return Made(Turn(question, grounded(capitalised(noun)) + "."), [scene.masks[groups[noun]].any(0)])


def region(scene: Scene, generator: np.random.Generator) -> Made | None:
    """What is at a point, in a box or in a mask."""
    if not scene.nouns:
        return None
    index = int(generator.integers(len(scene.nouns)))
    mask = scene.masks[index : index + 1]
    kind = _one(("point", "box", "mask"), generator) if scene.countable[index] else "mask"
    if kind == "point":
        seeded = torch.Generator().manual_seed(int(generator.integers(2**31)))
        prompt = {"point": tuple(random_points(mask, generator=seeded)[0].tolist())}
    else:
        prompt = {"box": tuple(mask_boxes(mask)[0].tolist())} if kind == "box" else {"mask": mask[0]}
    placeholder = "<mark>" if kind == "point" else "<region>"
    question = _one(words.REGION_QUESTIONS, generator).format(placeholder)
    noun, colour = scene.nouns[index], scene.colours[index]
    if colour and colour_in(noun) is None and scene.countable[index] and generator.random() < 0.5:
        noun = f"{colour} {noun}"
    answer = with_article(noun) if scene.countable[index] else noun
    return Made(Turn(question, capitalised(answer) + "."), prompts=[prompt])


def colour(scene: Scene, generator: np.random.Generator) -> Made | None:
    """The colour of what there is one of."""
    choices: list[tuple[str, str]] = []
    for index, noun in enumerate(scene.nouns):
        found, named = scene.colours[index], colour_in(noun)
        bare = noun.removeprefix(f"{named} ") if named else noun
        likes = sum((other.removeprefix(f"{colour_in(other)} ")) == bare for other in scene.nouns)
        if found and likes == 1 and scene.countable[index]:
            choices.append((bare, found))
    if not choices:
        return None
    noun, answer = _evenly(choices, generator)
    return Made(Turn(_one(words.COLOUR_QUESTIONS, generator).format(noun), capitalised(answer) + "."))


def position(scene: Scene, generator: np.random.Generator) -> Made | None:
    """Where the only one of its kind is."""
    choices = [
        (noun, place)
        for index, noun in enumerate(scene.nouns)
        if scene.countable[index] and not scene.alike(index) and (place := place_of(scene.centres[index]))
    ]
    if not choices:
        return None
    noun, place = _evenly(choices, generator)
    return Made(Turn(_one(words.POSITION_QUESTIONS, generator).format(noun), capitalised(place) + "."))


MAKERS: Mapping[str, Maker] = {
    "caption": caption,
    "grounded_caption": grounded_caption,
    "count": count,
    "presence": presence,
    "referring": referring,
    "semantic": semantic,
    "region": region,
    "colour": colour,
    "position": position,
}


ONCE = (caption, grounded_caption)
"""Asked once a conversation: in other words they would be answered the same."""


class MadeConversations:
    """A conversation for each picture of a dataset, made anew whenever it is drawn.

    Attributes:
        name: the dataset's short name.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        *,
        name: str,
        weights: Mapping[str, float] | None = None,
        captions: Mapping[str, Sequence[str]] | None = None,
        turns: tuple[int, int] = (1, 3),
        augmentation: Augmentation | None = None,
    ) -> None:
        """Args:
            dataset: pictures with segments.
            name: the dataset's short name.
            weights: how often each of `MAKERS` is asked, relative to the others; None = all alike.
            captions: sample id → sentences that people wrote.
            turns: fewest and most of a conversation.
            augmentation: of a picture, before anything is asked; what people wrote is left out of one that is changed.
        Raises:
            ValueError: a maker that does not exist, a weight that is not positive, an empty range.
        """
        weights = dict.fromkeys(MAKERS, 1.0) if weights is None else dict(weights)
        unknown = sorted(set(weights) - set(MAKERS))
        if unknown:
            raise ValueError(f"weights: expected some of {', '.join(MAKERS)}, got {unknown[0]!r}")
        if not weights or min(weights.values()) <= 0:
            raise ValueError("weights: expected at least one maker, each with more than 0")
        if not 1 <= turns[0] <= turns[1]:
            raise ValueError(f"turns: expected 1 <= fewest <= most, got {turns}")
        self.name, self._dataset, self._turns, self._augmentation = name, dataset, turns, augmentation
        self._makers = [MAKERS[maker] for maker in weights]
        self._shares = np.array(list(weights.values())) / sum(weights.values())
        self._captions = captions or {}

    def __len__(self) -> int:
        return len(self._dataset)

    def outline(self, index: int) -> Outline:
        """About as long as it has turns."""
        return Outline(80 * self._wanted(index), pictured=True)

    def _wanted(self, index: int) -> int:
        """Turns of a picture's conversation: always as many, so that those of a batch can be alike in length."""
        fewest, most = self._turns
        return fewest + index * SPREAD % (most - fewest + 1)

    def draw(self, index: int, generator: np.random.Generator) -> Conversation:
        """Raises ValueError if the picture cannot be read, or none of the makers has a question about it."""
        sample, captions = self._dataset[index], self._captions
        if self._augmentation is not None:
            sample, captions = self._augmentation(sample, generator), {}
        scene = Scene(sample, captions.get(sample.sample_id, ()))
        wanted = self._wanted(index)
        made: list[Made] = []
        used: list[Maker] = []
        # As many tries as it takes for the rare makers to have their share, whatever the picture lacks.
        for _ in range(4 * wanted):
            maker = self._makers[generator.choice(len(self._makers), p=self._shares)]
            one = None if maker in ONCE and maker in used else maker(scene, generator)
            if one is not None and all(one.turn.question != other.turn.question for other in made):
                made.append(one)
                used.append(maker)
            if len(made) == wanted:
                break
        if not made:
            raise ValueError(f"{self.name}: sample {sample.sample_id}: there is nothing to ask about it")
        masks = [mask for one in made for mask in one.masks]
        return Conversation(
            sample.image,
            tuple(one.turn for one in made),
            masks=torch.stack(masks) if masks else no_masks(sample.image),
            prompts=tuple(prompt for one in made for prompt in one.prompts),
            sample_id=sample.sample_id,
            dataset=self.name,
        )


def colour_in(noun: str) -> str | None:
    """The colour that a name begins with: "red star" → "red"; but an "orange" is a fruit."""
    first, _, rest = noun.partition(" ")
    return first if rest and first in COLOURS else None


def colour_of(pixels: np.ndarray) -> str | None:
    """Name of the colour of most of the uint8 [n, 3] RGB pixels; None if they are of many or of a faint one."""
    values = pixels.astype(np.float32) / 255
    high, low = values.max(1), values.min(1)
    chroma = high - low
    safe = np.maximum(chroma, 1e-6)
    red, green, blue = values.T
    hue = np.where(
        high == red,
        ((green - blue) / safe) % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    saturation = chroma / np.maximum(high, 1e-6)
    plain = saturation < 0.2
    vivid = (saturation > 0.4) & (high > 0.25)
    bands = {
        "red": vivid & ((hue < 0.25) | (hue >= 5.75)) & (high > 0.35),
        "orange": vivid & (hue >= 0.3) & (hue < 0.75) & (high > 0.65),
        "brown": vivid & (hue >= 0.25) & (hue < 0.8) & (high < 0.55),
        "yellow": vivid & (hue >= 0.8) & (hue < 1.15) & (high > 0.55),
        "green": vivid & (hue >= 1.25) & (hue < 2.7),
        "blue": vivid & (hue >= 3.1) & (hue < 4.3),
        "purple": vivid & (hue >= 4.4) & (hue < 5.2),
        "white": plain & (high > 0.8),
        "black": high < 0.18,
        "grey": plain & (high > 0.3) & (high < 0.7),
    }
    shares = {name: float(np.mean(band)) for name, band in bands.items()}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= CLEAR_SHARE else None


def place_of(centre: Sequence[float] | np.ndarray) -> str | None:
    """ "on the left", "in the middle, at the top" …; None near a border between two of them.

    Across comes first, in all of them: an answer is decided word by word, and no place is to have a beginning alone.
    """
    parts = []
    columns, rows = ("on the left", "in the middle", "on the right"), ("at the top", "", "at the bottom")
    for value, names in zip(centre, (columns, rows), strict=True):
        if 0.3 < value < 0.38 or 0.62 < value < 0.7:
            return None
        parts.append(names[0 if value <= 0.3 else 2 if value >= 0.7 else 1])
    return ", ".join(filter(None, parts))


def _kinds(scene: Scene) -> list[str]:
    """What there is: "two dogs", "a cat"; of what cannot be counted the name alone, "grass"."""
    return [
        counted(noun, len(members)) if scene.countable[members[0]] else noun for noun, members in scene.counts().items()
    ]


def _evenly(choices: Sequence[tuple[str, str]], generator: np.random.Generator) -> tuple[str, str]:
    """One of (what, answer), each answer as often as the others."""
    answer = _one(sorted({answer for _, answer in choices}), generator)
    return _one([what for what, other in choices if other == answer], generator), answer


def _one(choices: Sequence[T], generator: np.random.Generator) -> T:
    return choices[int(generator.integers(len(choices)))]
