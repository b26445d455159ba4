"""Questions and answers as people put them, and the small part of English grammar that they need.

The first of each tuple of questions is what the published weights were asked.
"""

from __future__ import annotations

from collections.abc import Sequence

SEGMENT_QUESTIONS = (
    "Please segment {} in this image.",
    "Segment {}.",
    "Where is {}? Answer with a mask.",
    "Show me {} in the picture.",
    "Point out {} for me.",
    "Mark {}, please.",
    "I am looking for {}. Can you outline it?",
)

GROUNDED_QUESTIONS = (
    "Could you please give me a detailed description of the image? Please respond with interleaved segmentation masks "
    "for the corresponding parts of the answer.",
    "Describe the picture and mark each thing that you name with a mask.",
    "What is there to see? Give a mask for every part of your answer.",
    "Tell me what the photograph shows, with masks.",
)

REGION_QUESTIONS = (
    "Can you provide me with a detailed description of the region in the picture marked by region1 {}?",
    "What is {}?",
    "Describe what is at {}.",
    "Which object do I point at with {}?",
    "Say what {} shows.",
)

CAPTION_QUESTIONS = (
    "Give a short description of the image.",
    "What does the picture show?",
    "Describe the photograph in one sentence.",
    "Write a caption for this image.",
)

COUNT_QUESTIONS = (
    "How many {} are there?",
    "How many {} can you see in the picture?",
    "Count the {}.",
)

PRESENCE_QUESTIONS = (
    "Is there {} in the picture?",
    "Can you see {}?",
    "Does the image show {}?",
)

COLOUR_QUESTIONS = (
    "What colour is the {}?",
    "Which colour does the {} have?",
)

POSITION_QUESTIONS = (
    "Where in the picture is the {}?",
    "In which part of the image is the {}?",
)

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_PLURALS = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "child": "children",
    "mouse": "mice",
    "knife": "knives",
    "shelf": "shelves",
    "sheep": "sheep",
    "skis": "skis",
    "scissors": "scissors",
    "stairs": "stairs",
    "broccoli": "broccoli",
}
_ORDERED = {"window-blind": "window blind"}
_QUALIFIERS = {"other", "merged", "stuff"}


def spoken(name: str) -> str:
    """A class of a vocabulary as people say it: "wall-brick" → "brick wall", "dog, puppy" → "dog"."""
    first = name.split(",")[0].strip()
    if first in _ORDERED:
        return _ORDERED[first]
    noun, *kinds = first.replace("_", " ").split("-")
    return " ".join([kind for kind in kinds if kind not in _QUALIFIERS] + [noun])


def plural(noun: str) -> str:
    """ "wine glass" → "wine glasses"."""
    *front, last = noun.split(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in set("aeiou"):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*front, last])


def with_article(noun: str) -> str:
    """ "an apple", "a dog"."""
    return f"{'an' if noun[:1].lower() in set('aeio') else 'a'} {noun}"


def counted(noun: str, number: int) -> str:
    """ "a dog", "three dogs", "many dogs"."""
    if number == 1:
        return with_article(noun)
    return f"{NUMBERS[number] if number < len(NUMBERS) else 'many'} {plural(noun)}"


def listed(parts: Sequence[str]) -> str:
    """ "a dog, a cat and two birds"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def capitalised(text: str) -> str:
    """With its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def grounded(phrase: str) -> str:
    """A phrase with its mask, as part of an answer."""
    return f"<p> {phrase} </p> [SEG]"
