"""What one can watch of a run: `log.jsonl`, a line in the terminal, and TensorBoard where it is installed."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter  # type: ignore[import-not-found]

logger = logging.getLogger(__name__)

Pictures = Callable[[nn.Module], Mapping[str, Tensor]]
"""objective (with the averaged weights, in evaluation mode) → name → uint8 [3, H, W], RGB."""

Gather = Callable[[Any], list[Any]]
"""An object of each process → those of all processes, in all of them."""


class Journal:
    """Means of the losses since the last entry, one JSON line an entry, over all processes.

    Args:
        out: The run's folder.
        main: Whether this process writes; the others only count.
        gather: See `Gather`.
        resumed_at: Step at which the run goes on; entries of later steps, which a crash left behind, are removed. 0
            starts a new log.
        divisor: What the sum of the losses of a step's batches is divided by: 1 if they add up to the step's, their
            number if their mean is the step's.
    """

    def __init__(self, out: Path, *, main: bool, gather: Gather, resumed_at: int, divisor: int):
        self.path, self.main, self.gather, self.divisor = out / "log.jsonl", main, gather, divisor
        self.skipped = 0
        self._reported: set[str] = set()
        self._start()
        self.board = open_board(out / "tensorboard", resumed_at=resumed_at) if main else None
        if main:
            self._forget_after(resumed_at)

    def _start(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._step_sums: dict[str, Tensor] = {}
        self._norms: list[float] = []
        self._images = 0
        self._skipped: list[str] = []
        self._since = time.monotonic()

    def _forget_after(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        self.path.write_text("".join(f"{line}\n" for line in kept) if step else "", encoding="utf-8")

    def add(self, losses: Mapping[str, Tensor], *, images: int, skipped: Sequence[str]) -> None:
        """Takes the losses of one batch of this process, and what was wrong with its samples.

        The main process names its own at once, those of the others with the next entry.
        """
        for name, loss in losses.items():
            self._step_sums[name] = self._step_sums.get(name, 0.0) + loss.detach()
        self._images += images
        self._skipped += skipped
        if self.main:
            self._report(skipped)

    def _report(self, skipped: Sequence[str]) -> None:
        """Names each sample once."""
        for line in skipped:
            if line not in self._reported:
                self._reported.add(line)
                logger.warning("left out: %s", line)

    def end_step(self, norm: float | None) -> None:
        """Takes the norm of a step's gradient; None for a step that was left out, whose losses do not count."""
        if norm is not None:
            self._norms.append(norm)
            for name, loss in self._step_sums.items():
                self._sums[name] = self._sums.get(name, 0.0) + loss
        self._step_sums = {}

    def write(self, *, step: int, share: float, elapsed: float, learning_rate: float) -> None:
        """Appends the means, logs them with the time that remains, and starts anew. Called by all processes."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        sums = {name: float(value) for name, value in self._sums.items()}
        everyone = self.gather((sums, self._images, self._skipped))
        images = sum(count for _, count, _ in everyone)
        skipped = [line for _, _, lines in everyone for line in lines]
        self.skipped += len(skipped)
        steps = max(len(self._norms), 1)
        # A loss that some batches do not have counts as zero there, so that the terms add up to the total.
        names = sorted({name for other, _, _ in everyone for name in other})
        means = {name: sum(other.get(name, 0.0) for other, _, _ in everyone) / (steps * self.divisor) for name in names}
        means["gradient_norm"] = sum(self._norms) / steps
        self._start()
        if not self.main:
            return
        self._report(skipped)
        numbers = {"images_per_second": round(images / seconds, 3), "learning_rate": float(f"{learning_rate:.6g}")}
        self.append(
            {"step": step, "share": round(share, 5), "elapsed": round(elapsed, 1), "skipped": self.skipped}
            | numbers
            | {name: round(value, 6) if math.isfinite(value) else None for name, value in means.items()}
        )
        self._scalars(numbers | means | {"skipped": self.skipped}, step=step, group="train")
        shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        left = elapsed * (1 - share) / max(share, 1e-9)
        logger.info(
            "step %d, %.1f%%, %.1f images/s, %.0f min left: %s", step, 100 * share, images / seconds, left / 60, shown
        )

    def write_evaluation(self, numbers: Mapping[str, float], pictures: Mapping[str, Tensor], *, step: int) -> None:
        """Numbers as an entry of their own, and pictures; the main process alone."""
        self.append({"step": step, "evaluation": dict(numbers)})
        logger.info("step %d: %s", step, " ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
        self._scalars(numbers, step=step, group="evaluation")
        if self.board is not None:
            for name, picture in pictures.items():
                self.board.add_image(name, picture.cpu().numpy(), step)
            self.board.flush()

    def append(self, entry: Mapping[str, Any]) -> None:
        """One line more.

        Raises:
            ValueError: It cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise ValueError(
                f"{self.path}: the log cannot be written ({error.strerror}); make room and continue with --resume"
            ) from error

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    def _scalars(self, numbers: Mapping[str, float], *, step: int, group: str) -> None:
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(f"{group}/{name}", value, step)


def _step_of(line: str) -> float:
    """Step of an entry; beyond all steps for a line that a crash cut off."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf


def open_board(folder: Path, *, resumed_at: int) -> "SummaryWriter | None":
    """A writer of TensorBoard's event files, or None with a hint where its package is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        logger.info("curves and pictures for TensorBoard: pip install 'omgvision[train]'; log.jsonl has the numbers")
        return None
    return SummaryWriter(str(folder), purge_step=resumed_at + 1 if resumed_at else None)
