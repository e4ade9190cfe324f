"""Keeps the last-used blocks of remote files in memory: a few large requests instead of one for each sample.

It pays off with `shard_order`, which stays within a few shards at a time; a global order would fetch a new block for
almost every sample.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

Reader = Callable[[int, int], bytes]  # (offset, size) -> at most `size` bytes

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
            read: returns (offset, size) of its bytes; asked for full blocks.
            offset: where the wanted bytes start.
            size: how many they are.

        Raises:
            UserError: `read` fails; the next attempt asks again.
        """
        stop = min(offset + size, total)
        if stop <= offset:
            return b""
        first, last = offset // self._block, (stop - 1) // self._block
        blocks = [self._get(file, total, read, number) for number in range(first, last + 1)]
        start = offset - first * self._block
        return b"".join(blocks)[start : start + stop - offset]

    def _get(self, file: str, total: int, read: Reader, number: int) -> bytes:
        key = file, number
        with self._lock:
            found = self._held.get(key)
            own: Future[bytes] | None = None
            if found is None:
                found = own = self._held[key] = Future()
                while len(self._held) > self._most:
                    self._held.popitem(last=False)
            else:
                self._held.move_to_end(key)
        if own is not None:
            self._fetch(own, key, lambda: read(number * self._block, min(self._block, total - number * self._block)))
        return found.result()

    def _fetch(self, own: "Future[bytes]", key: tuple[str, int], ask: Callable[[], bytes]) -> None:
        try:
            own.set_result(ask())
        except BaseException as error:  # whoever waits for this block has to learn of it too
            with self._lock:
                if self._held.get(key) is own:
                    del self._held[key]
            own.set_exception(error)
