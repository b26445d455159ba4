"""Freed memory is kept for the next tensors."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from omgvision.training import memory

ROUNDS, WARM_UP, MEBIBYTES = 20, 40, 64
"""Aligned memory is asked for a little larger than it was freed: some rounds pass until a place fits.
By itself the library learns to keep up to 32 MiB."""

CHILD = f"""
import resource, sys
import torch
sys.path.insert(0, sys.argv[2])  # the file alone: what it stands in takes long to import
from memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range({WARM_UP}):
    torch.ones({MEBIBYTES} * 2**18)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    torch.ones({MEBIBYTES} * 2**18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(how: str) -> int:
    folder = str(Path(memory.__file__).parent)
    done = subprocess.run([sys.executable, "-c", CHILD, how, folder], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_the_same_memory_is_used_again():
    fresh = new_pages("plain")
    assert fresh > ROUNDS  # a page may be large: at least one a round
    assert new_pages("keep") < fresh / 10
