"""Several processes give the same predictions as a single one (gloo, on this machine)."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vitlab.runtime import choose

from .in_processes import BATCH_SIZES, dumps

SCRIPT = Path(__file__).with_name("in_processes.py")
SIZES = range(1, 51)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The dumps of one process."""
    out = tmp_path_factory.mktemp("alone")
    torch.set_num_threads(1)
    dumps(out, choose("cpu"), SIZES)
    return out


def _run(ranks, out):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    given["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, str(SCRIPT), str(out)]
    processes = [
        subprocess.Popen(command, env={**given, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(ranks)
    ]
    for process in processes:
        errors = process.communicate(timeout=240)[1].decode()
        assert process.returncode == 0, errors


@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_dump_is_the_same_on_any_number_of_processes(tmp_path, alone, ranks):
    _run(ranks, tmp_path)
    for size in SIZES:
        for batch_size in BATCH_SIZES:
            expected = (alone / f"{size}-{batch_size}-0.csv").read_bytes()
            for rank in range(ranks):
                assert (tmp_path / f"{size}-{batch_size}-{rank}.csv").read_bytes() == expected, (size, batch_size)
    messages = {(tmp_path / f"refusal-{rank}.txt").read_text() for rank in range(ranks)}
    assert messages == {"image 7 is torn"}


def test_the_dump_has_each_image_once_and_the_batch_size_does_not_show(alone):
    for size in SIZES:
        tables = []
        for batch_size in BATCH_SIZES:
            with (alone / f"{size}-{batch_size}-0.csv").open() as file:
                tables.append(list(csv.DictReader(file)))
            assert [int(row["number"]) for row in tables[-1]] == list(range(size))
            assert len({row["image"] for row in tables[-1]}) == size
        for column in ("image", "label", "prediction", "top5", "correct"):
            assert len({tuple(row[column] for row in table) for table in tables}) == 1
        shares = np.array([[float(row["probability"]) for row in table] for table in tables])
        np.testing.assert_allclose(shares[1:], np.broadcast_to(shares[0], shares[1:].shape), atol=2e-5)
