"""Orders trials from a warm parent, and tells whether two runs ended with the same bytes."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WAYS = {
    "one process": (1, []),
    "two lanes": (1, ["scale.thread_replicas=2"]),
    "ddp": (2, ["scale.parallel=ddp"]),
    "fsdp": (2, ["scale.parallel=fsdp"]),
}
TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Outcome:
    """Exit codes and end times of a run's processes, by rank; a negative code is a signal, -1000 is hung."""

    codes: list[int]
    seconds: list[float]


class Farm:
    """A warm parent at work."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def run(self, path: Path, **order) -> Outcome:
        """Carry out one order; see `warm.carry_out`. What the processes print is beside the run, in `.log`."""
        given = {"path": str(path), "log": str(path.parent / f"{path.name}.log"), "ranks": 1, **order}
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder in memory where there is one: many small synced files are many waits on a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="vitlab-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@contextmanager
def warm_farm() -> Iterator[Farm]:
    paths = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": paths}
    command = [sys.executable, "-m", "faults.warm"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=TESTS
    ) as process:
        assert process.stdout.readline() == "warm\n"
        yield Farm(process)
        process.stdin.close()


def fingerprint(path: Path) -> dict[str, str]:
    """SHA-256 of everything that a finished run is: model, last checkpoint, numbers that it carries, samples."""
    newest = max((path / "checkpoints").glob("step-*"))
    manifest = json.loads((newest / "manifest.json").read_text())
    files = {f"checkpoint {name}": entry["sha256"] for name, entry in manifest["files"].items()}
    carried = json.dumps([manifest[key] for key in ("step", "average_updates", "progress")])
    return {
        **files,
        "carried": carried,
        "model": hashlib.sha256((path / "model" / "model.safetensors").read_bytes()).hexdigest(),
        "samples": hashlib.sha256(samples(path).encode()).hexdigest(),
        "logged": json.dumps(logged_steps(path)),
    }


def samples(path: Path) -> str:
    """The samples of every step in order, from the log of all processes; a step done twice must have been the same."""
    lines = (path.parent / f"{path.name}.samples").read_text().splitlines()
    seen: dict[tuple[int, int], str] = {}
    for line in lines:
        step, rank, what = line.split(" ", 2)
        if not line.endswith("]"):
            continue  # a kill tore it
        assert seen.setdefault((int(step), int(rank)), what) == what, f"step {step} was made of other samples"
    return "\n".join(f"{key} {what}" for key, what in sorted(seen.items()))


def logged_steps(path: Path) -> list[list]:
    """Step and names of every line of metrics.jsonl; times differ between runs, and so are left out."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [[line["step"], line.get("loss"), line.get("total")] for line in map(json.loads, lines)]
