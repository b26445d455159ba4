"""What to ask for a task, in the words that the published weights were trained with."""

import string
from collections.abc import Sequence
from typing import Literal, get_args

from .data.conversation_words import CAPTION_QUESTIONS, GROUNDED_QUESTIONS, REGION_QUESTIONS, SEGMENT_QUESTIONS
from .errors import UserError

ChatTask = Literal["caption", "refer", "gcg", "region", "segment", "vqa", "choice"]
CHAT_TASKS: tuple[ChatTask, ...] = get_args(ChatTask)

WORDLESS: tuple[ChatTask, ...] = ("caption", "gcg", "region")
"""Tasks that are a whole question by themselves."""

_WANTED = {"refer": "what to segment", "segment": "a class", "vqa": "a question", "choice": "a question"}
_LETTER_REQUEST = "Answer with the option's letter from the given choices directly."


def task_question(
    task: ChatTask, words: str = "", *, placeholders: Sequence[str] = (), options: Sequence[str] = ()
) -> str:
    """The question of a task.

    Args:
        task: "caption" (the picture in a sentence), "gcg" (a caption whose phrases have masks), "region" (what is
            pointed at), "refer" (the mask of what a sentence means), "segment" (the masks of a class), "vqa" (a
            question as it is), "choice" (a question with options, answered by a letter).
        words: The sentence of "refer", the class of "segment", the question of "vqa" and "choice".
        placeholders: ``<mark>`` or ``<region>`` for each thing that is pointed at; "region" takes exactly one.
        options: Of "choice", at least two; they become A, B, …

    Raises:
        UserError: An unknown task; words, something pointed at or options where none belong, or none where they do.
    """
    if task not in CHAT_TASKS:
        raise UserError(f"task: expected one of {', '.join(CHAT_TASKS)}, got {task!r}")
    words = words.strip()
    if task in WORDLESS and words:
        raise UserError(f"task {task}: expected no words of your own, got {words!r}; leave them or the task out")
    if task in _WANTED and not words:
        raise UserError(f"task {task}: expected {_WANTED[task]}, got no words")
    if task == "region":
        if len(placeholders) != 1:
            raise UserError(f"task region: expected one point, box or mask, got {len(placeholders) or 'none'}")
        return REGION_QUESTIONS[0].format(placeholders[0])
    if placeholders and task in ("caption", "gcg"):
        raise UserError(f"task {task}: expected nothing pointed at, it is about the whole picture; ask task region")
    if task == "choice":
        return _choice(words, options)
    if options:
        raise UserError(f"task {task}: expected no options, they belong to task choice")
    if task == "vqa":
        return words
    if task == "caption":
        return CAPTION_QUESTIONS[0]
    return GROUNDED_QUESTIONS[0] if task == "gcg" else SEGMENT_QUESTIONS[0].format(words.rstrip("."))


def _choice(question: str, options: Sequence[str]) -> str:
    if not 2 <= len(options) <= len(string.ascii_uppercase):
        raise UserError(f"task choice: expected 2 to 26 options, got {len(options) or 'none'}")
    listed = "".join(f"{letter}. {text}\n" for letter, text in zip(string.ascii_uppercase, options, strict=False))
    return f"{question}\n{listed}{_LETTER_REQUEST}"


__all__ = ["CHAT_TASKS", "WORDLESS", "ChatTask", "task_question"]
