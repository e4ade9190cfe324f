"""How much freed memory the C library keeps, so that large images do not leave the server large."""

import ctypes
from contextlib import suppress

LARGE_BYTES = 24 * 2**20  # more than any activation of ViT-B/16 for 8 images: those are reused, which is faster
KEPT_BYTES = 32 * 2**20  # of free memory at the end of the arena
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # parameters of mallopt, from glibc's malloc.h


def configure_malloc() -> None:
    """Make glibc return large buffers to the system as soon as they are freed; other C libraries are left alone.

    By default glibc raises its threshold to the largest buffer that was ever freed, up to 32 MiB. Smaller buffers then
    lie in arenas, one per thread, each of which keeps up to 64 MiB that `malloc_trim` does not reach: one arena is set.
    """
    with suppress(AttributeError, OSError, TypeError):  # the C library has no mallopt, or cannot be opened
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(ARENA_MAX, 1)


def trim_memory() -> None:
    """Return freed memory to the system, as far as glibc can; its milliseconds pay off after large images only."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
