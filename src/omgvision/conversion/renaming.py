"""One engine for every foreign layout: an ordered table of rules, read forwards to convert and backwards to restore.

A rule is a pair of templates in which ``{}`` stands for a number and ``*`` for ``weight`` or ``bias``, in one order on
both sides. A rule with several targets splits the rows of a packed tensor into equal parts.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..errors import UserError

_WILDCARDS = {"{}": r"(\d+)", "*": r"(weight|bias)"}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile("".join(_WILDCARDS.get(piece) or re.escape(piece) for piece in re.split(r"(\{\}|\*)", template)))


def _fill(template: str, values: tuple[str, ...]) -> str:
    return template.replace("*", "{}").format(*values)


@dataclass(frozen=True)
class Rule:
    """``source`` in a foreign checkpoint is ``targets`` in ours; ``transpose`` where both multiply from other sides."""

    source: str
    targets: tuple[str, ...]
    transpose: bool = False

    @cached_property
    def source_pattern(self) -> re.Pattern[str]:
        return _pattern(self.source)

    @cached_property
    def target_patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_pattern(target) for target in self.targets)


def rule(source: str, *targets: str, transpose: bool = False) -> Rule:
    return Rule(source, targets, transpose)


@dataclass
class Renamed:
    """What a table made of a state dict: the new ``state``, the old keys that it used and those it did not know."""

    state: dict[str, Tensor] = field(default_factory=dict)
    matched: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)


def rename(state: Mapping[str, Tensor], rules: Iterable[Rule]) -> Renamed:
    """Applies the first rule that fits each key. Tensors are not copied: parts and transposes are views.

    Raises:
        UserError: a packed tensor whose rows do not divide into the parts of its rule.
    """
    rules = tuple(rules)
    result = Renamed()
    for key, tensor in state.items():
        found = next(((each, match) for each in rules if (match := each.source_pattern.fullmatch(key))), None)
        if found is None:
            result.unmatched.append(key)
            continue
        chosen, match = found
        parts = len(chosen.targets)
        if tensor.ndim and tensor.shape[0] % parts:
            raise UserError(f"{key}: expected {parts} equal groups of rows, got the shape {list(tensor.shape)}")
        pieces = tensor.chunk(parts) if parts > 1 else (tensor,)
        for target, piece in zip(chosen.targets, pieces, strict=True):
            result.state[_fill(target, match.groups())] = piece.T if chosen.transpose else piece
        result.matched.append(key)
    return result


def restore(state: Mapping[str, Tensor], rules: Iterable[Rule]) -> Renamed:
    """The inverse of :func:`rename`: our names in, foreign names out, split tensors packed again.

    A packed tensor of which a part is absent is not made; the parts that are there count as unmatched.
    """
    targets = [(pattern, each, part) for each in rules for part, pattern in enumerate(each.target_patterns)]
    result = Renamed()
    collected: dict[str, tuple[Rule, dict[int, str]]] = {}
    for key in state:
        found = next(
            ((each, part, match) for pattern, each, part in targets if (match := pattern.fullmatch(key))), None
        )
        if found is None:
            result.unmatched.append(key)
            continue
        each, part, match = found
        collected.setdefault(_fill(each.source, match.groups()), (each, {}))[1][part] = key
    for source, (each, keys) in collected.items():
        if len(keys) < len(each.targets):
            result.unmatched.extend(keys.values())
            continue
        pieces = [state[keys[part]] for part in range(len(each.targets))]
        tensor = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        result.state[source] = tensor.T.contiguous() if each.transpose else tensor
        result.matched.extend(keys.values())
    return result
