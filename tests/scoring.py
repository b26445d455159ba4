"""`omg score` in tests: what a call gives, and what it must look like."""

import json
from collections.abc import Callable

Score = Callable[..., tuple[int, str, str]]
"""`omg score` with these words → exit code, standard output, standard error."""


def refused(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, out) == (2, ""), err
    assert err.startswith("omg: ")
    assert err.count("\n") == 1
    return err


def last_line(result: tuple[int, str, str]) -> dict[str, float | None]:
    code, out, err = result
    assert code == 0, err
    return json.loads(out.splitlines()[-1])
