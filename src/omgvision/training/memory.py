"""Memory of a training process on the CPU."""

import ctypes
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8
"""Parameters of `mallopt` (malloc.h of the GNU C library)."""

MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Has the C library keep what tensors free, for the next tensors, instead of giving it back to the system.

    Every step needs the same memory again. Given back, it comes as new pages that the system clears first: a quarter
    of the time of a step of the recipe `nano` went there. The process keeps its highest need until it ends.

    Returns:
        Whether it took effect: it does with the GNU C library, which nearly all Linux machines have.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    # One arena: memory that the backward pass's thread frees serves the forward pass's.
    settings = ((ARENA_MAX, 1), (MMAP_THRESHOLD, MOST), (TRIM_THRESHOLD, MOST), (TOP_PAD, 2**28))
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) for parameter, value in settings)
