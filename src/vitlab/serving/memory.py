"""How much freed memory the C library keeps, so that large images do not leave the server large."""

import ctypes
from contextlib import suppress

ARENA_MAX = -8  # a parameter of mallopt, from glibc's malloc.h


def use_one_arena() -> None:
    """Make glibc serve all threads from one arena; other C libraries are left alone.

    By default each thread has an arena of its own, which keeps up to 64 MiB that `malloc_trim` does not reach.
    """
    with suppress(AttributeError, OSError, TypeError):  # the C library has no mallopt, or cannot be opened
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)


def trim_memory() -> None:
    """Return freed memory to the system, as far as glibc can; its milliseconds pay off after large images only."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
