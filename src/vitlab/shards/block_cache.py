"""Keeps the last-used blocks of remote files at hand: few large requests instead of one for each sample.

It pays with `shard_order`, which stays with a few shards at a time; a global order meets every block anew each time.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from vitlab.shards.tar import Reader

BLOCK_BYTES = 8 * 2**20


class BlockCache:
    """Blocks of files by (file, number), up to `capacity` bytes.

    Several threads may read at once; a block that more than one of them wants is fetched once.
    """

    def __init__(self, capacity: int, block: int = BLOCK_BYTES) -> None:
        assert block > 0
        self._most = max(1, capacity // block)
        self._block = block
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()

    def read(self, file: str, total: int, read: Reader, offset: int, size: int) -> bytes:
        """`size` bytes of a file from `offset`, fewer at the end.

        Args:
            file: what distinguishes it from others.
            total: its size in bytes.
            read: gives (offset, size) of its bytes; asked for whole blocks.
            offset: where the wanted bytes start.
            size: how many they are.

        Raises:
            UserError: `read` cannot; the next attempt asks again.
        """
        stop = min(offset + size, total)
        if stop <= offset:
            return b""
        first, last = offset // self._block, (stop - 1) // self._block
        parts = [self._get(file, total, read, number) for number in range(first, last + 1)]
        start = offset - first * self._block
        return b"".join(parts)[start : start + stop - offset]

    def _get(self, file: str, total: int, read: Reader, number: int) -> bytes:
        key = file, number
        with self._lock:
            found = self._held.get(key)
            mine: Future[bytes] | None = None
            if found is None:
                found = mine = self._held[key] = Future()
                while len(self._held) > self._most:
                    self._held.popitem(last=False)
            else:
                self._held.move_to_end(key)
        if mine is not None:
            self._fetch(mine, key, lambda: read(number * self._block, min(self._block, total - number * self._block)))
        return found.result()

    def _fetch(self, mine: "Future[bytes]", key: tuple[str, int], ask: Callable[[], bytes]) -> None:
        try:
            mine.set_result(ask())
        except BaseException as error:  # whoever waits for this block has to learn of it too
            with self._lock:
                if self._held.get(key) is mine:
                    del self._held[key]
            mine.set_exception(error)
