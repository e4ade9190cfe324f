"""What a server keeps of the memory that it has used."""

import ctypes
from contextlib import suppress

LARGE_BYTES = 2**20
KEPT_BYTES = 2**21  # free bytes at an arena's end that stay with the process
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt, from glibc's malloc.h


def return_large_buffers() -> None:
    """From here on the C library returns every large buffer to the system at once; other than glibc, none is told.

    Left to itself, glibc takes the largest buffer that was ever freed, up to 32 MiB, as its measure: smaller ones come
    from arenas then, one for each thread, and each keeps up to 64 MiB. malloc_trim does not shorten a thread's arena.
    """
    with suppress(AttributeError, OSError, TypeError):  # no mallopt; no library to look in
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
