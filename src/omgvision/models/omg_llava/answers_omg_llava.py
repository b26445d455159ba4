"""Answers with tags, as people read them."""

import re
from dataclasses import dataclass, field

SEGMENT, PHRASE_START, PHRASE_END, REGION, MARK, IMAGE = "[SEG]", "<p>", "</p>", "<region>", "<mark>", "<image>"
SPECIAL_TOKENS = (SEGMENT, PHRASE_START, PHRASE_END, REGION, MARK, IMAGE)
"""In the order in which the original adds them. The last two are always replaced by what they stand for."""

QUESTION_TOKENS = (REGION, MARK, IMAGE)
"""Each stands for a picture or for something that is pointed at in it, which an answer does not bring along."""


@dataclass(frozen=True)
class Phrase:
    """A phrase of an answer that has a mask.

    Attributes:
        text: Its words.
        start, end: Where they are in the answer's text.
        mask: Number of the [SEG] that follows it, counted from 0; None if the answer ended before.
    """

    text: str
    start: int
    end: int
    mask: int | None


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer as people read it: the text without tags, and the phrases that have masks.

    Attributes:
        open: Where a phrase begins that the answer has not ended yet; None without one.
    """

    text: str
    phrases: list[Phrase] = field(default_factory=list)
    open: int | None = None


def parse_answer(answer: str) -> ParsedAnswer:
    """``<p> A man </p> [SEG] rides.`` → "A man rides." with the phrase "A man" of mask 0.

    A [SEG] without a phrase counts, but belongs to none; a phrase without [SEG] has mask None.
    """
    text, segments = "", 0
    open_at: int | None = None
    waiting: Phrase | None = None
    phrases: list[Phrase] = []
    pieces = re.split(r"(<p>|</p>|\[SEG\]|<\|im_end\|>|<s>|</s>)", answer)
    for number, piece in enumerate(pieces):
        if piece == PHRASE_START:
            open_at = len(text)
        elif piece == PHRASE_END:
            if waiting is not None:
                phrases.append(waiting)
            start = len(text) if open_at is None else open_at
            words = text[start:]
            start += len(words) - len(words.lstrip())
            waiting, open_at = Phrase(words.strip(), start, start + len(words.strip()), None), None
        elif piece == SEGMENT:
            if waiting is not None:
                phrases.append(Phrase(waiting.text, waiting.start, waiting.end, segments))
                waiting = None
            segments += 1
        elif not re.fullmatch(r"<\|im_end\|>|<s>|</s>", piece):
            # Tags stand between spaces of their own: of two one is enough, and before a comma or at the end of a line
            # none. All other spaces may be a table or a program.
            if open_at is not None:
                piece = re.sub(r" +", " ", piece)
            if number > 0:
                piece = re.sub(r"^ +", " ", piece)
            if number < len(pieces) - 1:
                piece = re.sub(r"(?<=\S) +$", " ", piece)
            if number > 0 and re.match(r" ?[.,;:!?\n]", piece):
                text, piece = text.rstrip(" "), piece.lstrip(" ")
            elif not text or text[-1].isspace():
                piece = piece.lstrip(" ")
            text += piece
    if waiting is not None:
        phrases.append(waiting)
    return ParsedAnswer(text.rstrip(), phrases, open_at)


def without_question_tokens(answer: str) -> str:
    """``It is <region> red.`` → "It is red."."""
    return re.sub(rf" ?(?:{'|'.join(map(re.escape, QUESTION_TOKENS))})", "", answer)


__all__ = [
    "QUESTION_TOKENS",
    "ParsedAnswer",
    "Phrase",
    "parse_answer",
    "without_question_tokens",
]
