"""Answers with tags, as people read them."""

import re
from dataclasses import dataclass, field

SEGMENT, PHRASE_START, PHRASE_END, REGION, MARK, IMAGE = "[SEG]", "<p>", "</p>", "<region>", "<mark>", "<image>"
SPECIAL_TOKENS = (SEGMENT, PHRASE_START, PHRASE_END, REGION, MARK, IMAGE)
"""In the order in which the original adds them. The last two are always replaced by what they stand for."""


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
    for piece in re.split(r"(<p>|</p>|\[SEG\]|<\|im_end\|>|<s>|</s>)", answer):
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
            # Tags stand between spaces of their own: of two one is enough, and before a comma none.
            piece = re.sub(r" +", " ", piece)
            if re.match(r" ?[.,;:!?]", piece):
                text, piece = text.rstrip(" "), piece.lstrip(" ")
            elif not text or text[-1].isspace():
                piece = piece.lstrip(" ")
            text += piece
    if waiting is not None:
        phrases.append(waiting)
    return ParsedAnswer(text.rstrip(), phrases, open_at)


__all__ = ["ParsedAnswer", "Phrase", "parse_answer"]
