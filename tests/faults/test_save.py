"""A save that is cut short anywhere leaves the checkpoint before it, and a disk that fails is one line."""

import os
import random
import re
import shutil
import signal
from pathlib import Path

import pytest

from faults.farm import fingerprint
from vitlab.training import checkpoint_files

THOROUGH = int(os.environ.get("VITLAB_KILLS", "20")) > 20
CALLS_OF_ONE_SAVE = 112
CALLS = range(2 * CALLS_OF_ONE_SAVE + 1, 3 * CALLS_OF_ONE_SAVE + 1)  # the third save
# The last ones force folders to the disk, and rename.
CRASHES = CALLS if THOROUGH else [*CALLS[:-8:40], *CALLS[-6:]]
TRACED = 60 if THOROUGH else 6
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def _is_whole(path: Path) -> bool:
    newest = checkpoint_files.newest_first(path / "checkpoints")[0]
    entries = checkpoint_files.read_manifest(newest)["files"]
    for name, entry in entries.items():
        checkpoint_files.check_file(newest / name, entry)
    return len(entries) == 3


@pytest.mark.parametrize("call", CRASHES)
def test_a_crash_before_any_call_of_a_save(farm, uninterrupted, folder, call):
    assert farm.run(folder / "run", crash_at=call).codes == [-signal.SIGKILL]
    assert _is_whole(folder / "run")
    assert farm.run(folder / "run").codes == [0]
    assert fingerprint(folder / "run") == uninterrupted["one process"][0]


@pytest.mark.parametrize("call", CRASHES)
def test_a_failing_disk_at_any_call_of_a_save(farm, uninterrupted, folder, call):
    assert farm.run(folder / "run", fail_at=call).codes == [2]
    [line] = (folder / "run.log").read_text().splitlines()
    assert re.fullmatch(
        r"vitlab: cannot write a checkpoint to .*: Input/output error; .* MB are free; .*--resume", line
    )
    assert _is_whole(folder / "run")
    assert not list((folder / "run" / "checkpoints").glob(".*.part"))
    assert farm.run(folder / "run").codes == [0]
    assert fingerprint(folder / "run") == uninterrupted["one process"][0]


@needs_strace
@pytest.mark.parametrize("number", range(TRACED))
def test_a_kill_at_a_system_call(farm, uninterrupted, folder, number):
    """Whatever Python does beneath its own calls: the kernel kills at the n-th call of a kind."""
    draw = random.Random(number)
    call, most = draw.choice([("fsync", 50), ("rename", 12), ("write", 200), ("openat", 100), ("close", 100)])
    rule = f"inject={call}:signal=SIGKILL:when={draw.randint(1, most)}"
    codes = farm.run(folder / "run", strace=["-o", "/dev/null", "-e", f"trace={call}", "-e", rule]).codes
    assert codes in ([0], [-signal.SIGKILL])
    assert farm.run(folder / "run").codes == [0]
    assert fingerprint(folder / "run") == uninterrupted["one process"][0]


@needs_strace
def test_everything_is_on_the_disk_before_it_is_named(farm, folder):
    """Kills cannot show this; the order of calls does: every file and the folder are synced, then comes the rename."""
    arguments = ["-o", str(folder / "trace"), "-y", "-e", "trace=fsync,rename"]
    assert farm.run(folder / "run", strace=arguments).codes == [0]
    calls = re.findall(r"(fsync|rename)\((.*)\) = 0", (folder / "trace").read_text())
    [at] = [i for i, (call, what) in enumerate(calls) if call == "rename" and what.endswith('step-00000003"')]
    before = [what for call, what in calls[:at] if call == "fsync" and ".step-00000003.part" in what]
    names = [
        "average.safetensors",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        ".step-00000003.part",
    ]
    for name in names:
        assert any(what.endswith(f"{name}>") for what in before), name
    after = [what for call, what in calls[at + 1 :] if call == "fsync"]
    assert after[0].endswith("/checkpoints>")
