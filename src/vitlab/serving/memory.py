"""What a server keeps of the memory that it has used."""

import ctypes
from contextlib import suppress

LARGE_BYTES = 4 * 2**20  # more than ViT-B/16 takes for any result of one image: those are used again, which is faster
KEPT_BYTES = 2 * LARGE_BYTES  # at the end of each thread's arena
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's, from glibc's malloc.h


def return_large_buffers() -> None:
    """From here on glibc returns every large buffer to the system at once; other C libraries are left alone.

    By itself it takes the largest buffer that was ever freed, up to 32 MiB, for its measure: smaller ones lie in arenas
    then, one for each thread, and each keeps up to 64 MiB. `malloc_trim` does not shorten the arenas of threads.
    """
    with suppress(AttributeError, OSError, TypeError):  # no mallopt, or no library to find it in
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
