"""What a server keeps of the memory that it has used."""

import ctypes
from contextlib import suppress

LARGE_BYTES = 24 * 2**20  # more than ViT-B/16 takes for any result of 8 images: those are used again, which is faster
KEPT_BYTES = 32 * 2**20  # at the end of the arena
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # mallopt's, from glibc's malloc.h


def return_large_buffers() -> None:
    """From here on glibc returns every large buffer to the system at once; other C libraries are left alone.

    By itself it takes the largest buffer that was ever freed, up to 32 MiB, for its measure: smaller ones lie in arenas
    then, one for each thread, and each keeps up to 64 MiB that `malloc_trim` does not reach: one arena is enough.
    """
    with suppress(AttributeError, OSError, TypeError):  # no mallopt, or no library to find it in
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(ARENA_MAX, 1)


def give_back() -> None:
    """Returns freed memory to the system, as far as glibc can; worth its milliseconds after a large image only."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
