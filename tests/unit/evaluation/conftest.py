"""The official tools' recorded inputs and numbers, beside the repository."""

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "metrics"


@pytest.fixture
def recorded() -> Path:
    if not GOLDEN.is_dir():
        pytest.skip(f"no recorded metrics in {GOLDEN}")
    return GOLDEN
