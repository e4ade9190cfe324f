"""One of several processes of a distributed evaluation; test_ranks.py starts it as a program of its own."""

import sys
from pathlib import Path

import torch

from vitlab.data.sources import select
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.evaluation import accuracy, dump
from vitlab.models.build import create_model
from vitlab.runtime import choose, process_group

BATCH_SIZES = (1, 3, 16)


def tiny_model():
    torch.manual_seed(0)
    model = create_model("ViT-Ti/7", num_classes=10, image_size=28, hidden=16, layers=1, heads=2, mlp=16)
    torch.nn.init.normal_(model.head.weight)
    return model


def first_digits(count):
    whole = open_source("digits", "test")
    return select(f"{count} digits", [(whole, list(range(count)))])


def dumps(out: Path, runtime, sizes):
    """The dump of every size and batch size, as this process has it."""
    model = tiny_model()
    for size in sizes:
        source = first_digits(size)
        for batch_size in BATCH_SIZES:
            found = accuracy.measure(
                model, source, model.preprocessing, runtime, batch_size=batch_size, distributed=True, bad_images="skip"
            )
            dump.write(found, source, source.classes, out / f"{size}-{batch_size}-{runtime.rank}.csv")


def refusal(out: Path, runtime):
    """The message of every process for an image that one of them cannot read."""
    model, source = tiny_model(), first_digits(20)
    broken = _Broken(source)
    try:
        accuracy.measure(tiny_model(), broken, model.preprocessing, runtime, batch_size=2, distributed=True)
    except UserError as error:
        (out / f"refusal-{runtime.rank}.txt").write_text(str(error))


class _Broken:
    """A source whose image 7 cannot be read."""

    def __init__(self, source):
        self.source = source
        self.name, self.classes, self.labels_N = source.name, source.classes, source.labels_N
        self.fingerprint, self.skipped, self.shards_N = source.fingerprint, (), None

    def __len__(self):
        return len(self.source)

    def key(self, index):
        return self.source.key(index)

    def read(self, index):
        if index == 7:
            raise UserError("image 7 is torn")
        return self.source.read(index)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with process_group(choose("cpu")) as runtime:
        dumps(folder, runtime, range(1, 51))
        refusal(folder, runtime)
