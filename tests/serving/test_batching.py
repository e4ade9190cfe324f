"""Batches: in order, full under load, bounded, and whole after a failure."""

import asyncio
import threading

import numpy as np
import pytest

from vitlab.serving.engine import Batcher
from vitlab.serving.limits import Limits, Refused


def image(value):
    return np.full((2, 2, 3), value, np.uint8)


def echo(sizes):
    """An engine that answers with each image's own value, and notes the sizes of its batches."""

    def engine(images_BHWC):
        sizes.append(len(images_BHWC))
        return images_BHWC[:, 0, 0, :1].astype(np.float32)

    return engine


def test_everyone_gets_the_answer_to_the_own_image():
    sizes = []

    async def main():
        batcher = Batcher(echo(sizes), Limits(batch=4, waiting=50))
        async with batcher.running():
            return await asyncio.gather(*(batcher.predict(image(value)) for value in range(10)))

    assert [float(answer[0]) for answer in asyncio.run(main())] == list(range(10))
    assert sizes == [4, 4, 2]


def test_a_lone_image_does_not_wait_for_others():
    sizes = []

    async def main():
        batcher = Batcher(echo(sizes), Limits(gather_seconds=0.01))
        async with batcher.running():
            for value in range(3):
                await batcher.predict(image(value))

    asyncio.run(main())
    assert sizes == [1, 1, 1]


def test_the_queue_is_bounded_and_clients_that_went_away_are_not_computed_for():
    sizes, go_on = [], threading.Event()
    answer = echo(sizes)

    def slow(images_BHWC):
        go_on.wait()
        return answer(images_BHWC)

    async def main():
        batcher = Batcher(slow, Limits(batch=1, waiting=2))
        async with batcher.running():
            first = asyncio.create_task(batcher.predict(image(0)))
            while not first.done() and batcher.waiting == 0:
                await asyncio.sleep(0)
            while batcher.waiting:
                await asyncio.sleep(0)  # the worker has taken it
            waiting = [asyncio.create_task(batcher.predict(image(value))) for value in (1, 2)]
            await asyncio.sleep(0)
            with pytest.raises(Refused, match="too many images") as refused:
                await batcher.predict(image(3))
            assert refused.value.status == 429
            waiting[0].cancel()
            go_on.set()
            return await first, await waiting[1]

    first, last = asyncio.run(main())
    assert (first[0], last[0]) == (0, 2)
    assert sizes == [1, 1]


def test_a_batch_that_fails_does_not_stop_the_next():
    def picky(images_BHWC):
        if (images_BHWC == 13).any():
            raise ValueError("thirteen")
        return images_BHWC[:, 0, 0, :1].astype(np.float32)

    async def main():
        batcher = Batcher(picky, Limits())
        async with batcher.running():
            with pytest.raises(ValueError, match="thirteen"):
                await batcher.predict(image(13))
            return await batcher.predict(image(14))

    assert asyncio.run(main())[0] == 14
