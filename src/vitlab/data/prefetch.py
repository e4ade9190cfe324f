"""Moves batches to the device while it works on the previous one."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import torch

from vitlab.data.assembly import Batch


def prefetched(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """The same batches with images and labels on `device`, on a CUDA device one batch ahead.

    The bytes travel on a stream of their own, so that neither host nor device waits for them; that needs batches in
    pinned memory (`pin_memory` of `loader.training_batches`). Indices and epochs stay on the host.

    Args:
        batches: on the host; closed with this generator.
        device: where the model is.
    """
    with closing(batches):
        if device.type == "cuda":
            yield from _one_ahead(batches, device)
        else:
            for batch in batches:
                yield _moved(batch, device)


def _one_ahead(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = _moved(batch, device)
        if ahead is not None:
            yield ahead
        # The copy was started one step ago; from here on the device's own stream may use it.
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for tensor in (moved.images_BHWC, moved.labels_B):
            tensor.record_stream(current)
        ahead = moved
    if ahead is not None:
        yield ahead


def _moved(batch: Batch, device: torch.device) -> Batch:
    return replace(
        batch,
        images_BHWC=batch.images_BHWC.to(device, non_blocking=True),
        labels_B=batch.labels_B.to(device, non_blocking=True),
    )
