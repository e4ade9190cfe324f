"""When a device has too little memory: explained in one line, and avoided by dividing batches into microbatches."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from vitlab.errors import TrainingFailed, UserError
from vitlab.models.build import Model
from vitlab.recipes import memory as arithmetic
from vitlab.recipes.schema import Recipe
from vitlab.runtime import Runtime, all_reduce_max, seeded
from vitlab.training import objectives

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def microbatches_of(recipe: Recipe, model: Model, runtime: Runtime) -> int:
    """Into how many microbatches each process divides its share of a batch.

    For "auto" the fewest that fit: by arithmetic, and then by trying one microbatch if there is a GPU to try it on. (On
    the CPU nothing is tried: a process that uses too much is killed there.) The result of training does not depend
    on it beyond rounding, as long as there is no dropout.

    Raises:
        UserError: not even one image fits.
    """
    share = recipe.batch_size // runtime.ranks
    wanted = recipe.scale.accumulation
    if wanted != "auto":
        return min(wanted, share)
    fitting = _most_images(recipe, model, runtime)
    if not fitting:
        raise UserError(
            f"not one image fits into the memory of {runtime.device}: set scale.recompute=true, or a smaller model"
        )
    count = -(-share // min(fitting, share))
    while runtime.device.type == "cuda" and count < share and not _fits(recipe, model, runtime, -(-share // count)):
        count = min(share, count + max(1, count // 4))
    return int(all_reduce_max(runtime, count))


def _most_images(recipe: Recipe, model: Model, runtime: Runtime) -> int:
    precision: arithmetic.Precision = "float32" if runtime.compute == torch.float32 else "bfloat16"
    return arithmetic.largest_batch(
        model.config, available_bytes(runtime), precision=precision, optimizer=recipe.optimizer.kind,
        averaging=recipe.averaging > 0, recompute=recipe.scale.recompute,
    )  # fmt: skip


def available_bytes(runtime: Runtime) -> int:
    """Memory that this process may use: of its GPU, or its share of what the host has available."""
    if runtime.device.type == "cuda":
        return torch.cuda.mem_get_info(runtime.device)[0] + torch.cuda.memory_reserved(runtime.device)
    if runtime.device.type == "mps":
        return torch.mps.recommended_max_memory()
    return _host_bytes() // runtime.ranks


def _host_bytes() -> int:
    """What the host has available, within a container's limit if there is one; 8 GiB if neither is known."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
        limit = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        found.append(int(limit) - int((CGROUP / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError, KeyError):
        pass  # a limit of "max", or another system
    return max(0, min(found)) if found else 8 * 2**30


def _fits(recipe: Recipe, model: Model, runtime: Runtime, images: int) -> bool:
    """Whether a forward and backward pass of so many images fits beside the memory of optimizer and averages."""
    copies = (2 if recipe.optimizer.kind == "adamw" else 1) + (recipe.averaging > 0) + (runtime.ranks > 1)
    count = sum(parameter.numel() for parameter in model.parameters())
    height, width = model.config.image_hw
    try:
        with seeded(recipe.seed, "probe"), runtime.autocast():
            held = torch.empty(copies * count, device=runtime.device)
            logits_BK = model(torch.zeros(images, 3, height, width, device=runtime.device))
            labels_B = torch.zeros(images, dtype=torch.int64, device=runtime.device)
            objectives.total(logits_BK, labels_B, recipe.objective).backward()  # type: ignore[no-untyped-call]
        del held, logits_BK, labels_B
    except torch.OutOfMemoryError:
        return False
    finally:
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    return True


@contextmanager
def shortage_as_failure(recipe: Recipe, runtime: Runtime, step: int) -> Iterator[None]:
    """Raises TrainingFailed, with advice, if what is done inside does not fit into memory."""
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
    # Outside of the handler: the error would keep the tensors of the step alive.
    raise TrainingFailed(
        f"step {step}: the memory of {runtime.device} is too small for {recipe.batch_size // runtime.ranks} images at "
        "once; continue with --resume --set scale.accumulation=auto, which learns the same from microbatches"
    )


def is_shortage(error: Exception) -> bool:
    """Whether an error says that memory ran out; on the CPU torch has no class of its own for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "DefaultCPUAllocator" in str(error) or "not enough memory" in str(error)
