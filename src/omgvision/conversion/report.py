"""What a conversion did with every key."""

import json
from dataclasses import asdict, dataclass, field

_SHOWN = 10


@dataclass
class ConversionReport:
    """Nothing is dropped silently: every key of the sources is in ``matched``, ``unexpected`` or ``ignored``.

    Attributes:
        matched: Keys of the sources whose weights are in the result.
        missing: Names of our model that no source filled.
        unexpected: Keys of the sources that no rule knows.
        ignored: Keys that are known and left out on purpose, with the reason.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)

    def merge(self, other: "ConversionReport") -> "ConversionReport":
        """Both reports in one."""
        return ConversionReport(
            self.matched + other.matched,
            self.missing + other.missing,
            self.unexpected + other.unexpected,
            self.ignored | other.ignored,
        )

    def __str__(self) -> str:
        lines = [
            f"{len(self.matched)} matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.ignored)} left out"
        ]
        for title, keys in (("missing", self.missing), ("unexpected", self.unexpected)):
            lines += [f"  {title}: {key}" for key in keys[:_SHOWN]]
            if len(keys) > _SHOWN:
                lines.append(f"  {title}: … and {len(keys) - _SHOWN} more")
        by_reason: dict[str, list[str]] = {}
        for key, reason in self.ignored.items():
            by_reason.setdefault(reason, []).append(key)
        for reason, keys in by_reason.items():
            rest = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            lines.append(f"  left out: {keys[0]}{rest} ({reason})")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The whole report, every key of it, as a JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)
