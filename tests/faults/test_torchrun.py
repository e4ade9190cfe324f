"""`torchrun ... -m vitlab pretrain`: a killed process is replaced, and the run ends as if nothing had been."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RESTARTS = 10 if int(os.environ.get("VITLAB_KILLS", "20")) > 20 else 1
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "--max-restarts",
    "2",
]
CHANGES = [
    "batch_size=12", "averaging=0.9", "checkpoint_every=2", "log_every=1", "model.options.hidden=16",
    "model.options.layers=1", "model.options.heads=2",
]  # fmt: skip
TINY = ["pretrain", "demo-upstream", "--device", "cpu", "--data", "digits", *(f"--set={change}" for change in CHANGES)]
# Where the agent shares its store with the workers, a restart now and then meets what its predecessor left there.
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}  # fmt: skip


def _start(*words: str) -> subprocess.Popen:
    command = [*TORCHRUN, "-m", "vitlab", *words]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _workers(agent: int) -> list[int]:
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return [int(child) for child in children if "vitlab" in Path(f"/proc/{child}/cmdline").read_text()]


def _digest(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> str:
    run = tmp_path_factory.mktemp("alone") / "run"
    agent = _start(*TINY, "--steps", "40", "--out", str(run))
    out, problems = agent.communicate()
    assert agent.returncode == 0, problems
    assert out.count("Accuracy on") == 1
    assert problems.count("pretrain: 40/40") == 1
    return _digest(run)


@pytest.mark.long
@pytest.mark.parametrize("number", range(RESTARTS))
def test_a_killed_process_is_replaced(uninterrupted, tmp_path, number):
    run = tmp_path / "run"
    agent = _start(*TINY, "--steps", "40", "--out", str(run))
    while not any((run / "checkpoints").glob(f"step-{2 * (1 + number % 5):08d}")):
        assert agent.poll() is None, agent.stderr.read()
        time.sleep(0.01)
    os.kill(_workers(agent.pid)[number % 2], signal.SIGKILL)
    out, problems = agent.communicate()
    assert agent.returncode == 0, problems
    assert "Traceback" not in problems
    assert out.count("Accuracy on") == 1
    assert _digest(run) == uninterrupted


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--set", "batch_size=13"],
            "vitlab: a batch of 13 cannot be divided among 2 processes: set batch_size to 12 or 14",
        ),
        (["--set", "batch_sise=12"], "vitlab: unknown key 'batch_sise': did you mean batch_size?"),
        (["--out", "/proc/nowhere"], "vitlab: cannot write to /proc/nowhere"),
    ],
)
def test_a_mistake_is_told_once(tmp_path, words, expected):
    command = [*TORCHRUN[:-2], "-m", "vitlab", *TINY, "--steps", "4", "--out", str(tmp_path / "run"), *words]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    said = [line for line in ended.stderr.splitlines() if line.startswith("vitlab: ")]
    assert len(said) == 1
    assert said[0].startswith(expected)
    assert "exitcode  : 2" in ended.stderr
    assert not (tmp_path / "run" / "model").exists()
