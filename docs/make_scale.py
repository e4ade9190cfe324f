"""Writes the table of scale.md from the arithmetic of `vitlab.recipes.cost` and `vitlab.recipes.memory`.

Usage: python docs/make_scale.py
"""

from pathlib import Path

from vitlab.recipes import cost, memory, zoo
from vitlab.recipes.configs import ViTConfig

PAGE = Path(__file__).parent / "scale.md"
BEGIN, END = "<!-- table begins -->\n", "<!-- table ends -->"
BATCH = 4096
PEAK = 989.4e12  # of an H100 SXM in bfloat16
UTILISATION = 0.4
GPUS = (8, 64, 512)
# Model, what it is trained on, images, epochs (paper: Table 3).
RUNS = [
    ("ViT-S/16", "ImageNet", 1_281_167, 300),
    ("ViT-B/16", "ImageNet-21k", 14_197_122, 90),
    ("ViT-L/16", "ImageNet-21k", 14_197_122, 90),
    ("ViT-H/14", "JFT-300M", 303_000_000, 14),
]
CLASSES = {"ImageNet": 1000, "ImageNet-21k": 21_843, "JFT-300M": 18_291}


def table() -> str:
    """The rows as Markdown."""
    head = (
        "| model | run | GPUs | images per GPU | DDP, peak GB per GPU | FSDP, peak GB per GPU "
        "| FSDP and recompute | time |"
    )
    lines = [head, "|---|---|--:|--:|--:|--:|--:|--:|"]
    for name, data, images, epochs in RUNS:
        config = zoo.configure(name, {"num_classes": CLASSES[data], "image_size": 224})
        for gpus in GPUS:
            batch = BATCH // gpus
            ddp = memory.training_memory(config, batch, precision="bfloat16").peak
            fsdp, recomputed = (_fsdp_bytes(config, batch, gpus, recompute) for recompute in (False, True))
            seconds = cost.exaflops(config, epochs, images) * 1e18 / (PEAK * UTILISATION * gpus)
            cells = (
                name,
                f"{data}, {epochs} epochs",
                gpus,
                batch,
                _gb(ddp),
                _gb(fsdp),
                _gb(recomputed),
                _time(seconds),
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _fsdp_bytes(config: ViTConfig, batch: int, gpus: int, recompute: bool) -> float:
    """Weights and optimizer states are sharded; two blocks at a time are gathered, in bfloat16."""
    needed = memory.training_memory(config, batch, precision="bfloat16", recompute=recompute)
    held = (needed.weights + needed.moments) / gpus
    gathered = needed.casts * 2 / config.layers
    return held + max(needed.activations + gathered, needed.gradients / gpus + gathered) + needed.workspace


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f}"


def _time(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"


def page_with(text: str, rows: str) -> str:
    """The page with its table replaced."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + rows + END + after


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
