"""`omg score` as a function."""

from pathlib import Path

import pytest

from omg_cli.main import run
from tests.scoring import Score


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Score:
    def call(metric: str, truth: Path, guess: Path, *options: object) -> tuple[int, str, str]:
        code = run(["score", metric, "--gt", str(truth), "--pred", str(guess), *map(str, options)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
