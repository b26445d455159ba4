"""How near to the original's record is near enough (facts/omg_seg.md, section 11)."""

import torch
from torch import Tensor


def assert_close(
    found: Tensor | None, expected: Tensor, *, atol: float = 0.0, rtol: float = 0.0, name: str = ""
) -> None:
    """Equal shapes and |found - expected| ≤ atol + rtol·|expected| everywhere."""
    assert found is not None, name
    torch.testing.assert_close(found.detach(), expected, atol=atol, rtol=rtol, msg=lambda text: f"{name} {text}")


def assert_features(found: Tensor | None, expected: Tensor) -> None:
    """Features, of size 1 to 10."""
    assert_close(found, expected, atol=1e-4)


def assert_logits(found: Tensor | None, expected: Tensor) -> None:
    """Logits, of up to 80; the original itself moves by 1e-4 against float64."""
    assert_close(found, expected, atol=1e-3)
