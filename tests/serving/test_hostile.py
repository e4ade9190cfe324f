"""Hostile requests to the real command, in a process of its own (faults 49 to 54): 1,000, or HOSTILE_REQUESTS."""

import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import vitlab
from serving.hostile import GOOD, attack
from serving.servers import ask, encoded, noise, predict, small_model

COUNT = int(os.environ.get("HOSTILE_REQUESTS", "1000"))


@pytest.fixture
def served(tmp_path):
    """The process and the port of `vitlab serve`."""
    vitlab.save_model(small_model(), tmp_path / "model")
    words = [sys.executable, "-m", "vitlab", "serve", str(tmp_path / "model"), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = re.compile(r"http://127\.0\.0\.1:(\d+)")
            yield process, next(int(found[1]) for line in process.stderr if (found := address.search(line)))
        finally:
            process.terminate()


def resident_bytes(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to return memory")
def test_large_images_leave_no_memory_taken(served):
    process, port = served
    photo = encoded(np.zeros((4000, 6000, 3), np.uint8))
    predict(port, GOOD)
    before = resident_bytes(process)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda data: predict(port, data), [photo, encoded(noise(shape=(1400, 1900, 3)), "JPEG")] * 6))
    assert resident_bytes(process) - before < 40 * 2**20


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_hostile_requests_do_no_harm(served):
    process, port = served
    expected = predict(port, GOOD)
    attack(port, COUNT // 5, seed=1)  # first uses allocate; from here on nothing may grow
    before = resident_bytes(process)
    seen = attack(port, COUNT, seed=2)
    after = resident_bytes(process)
    print(f"\n{COUNT} requests: {before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after, {dict(seen)}")
    assert sum(seen.values()) == COUNT
    assert not [key for key in seen if key[1] >= 500], "no server error"
    assert not [key for key in seen if key[2] and not key[1]], "whoever speaks HTTP gets an answer"
    allowed = {kind for kind, status, _ in seen if 200 <= status < 300}
    assert allowed <= {"good", "mutated", "bad_form", "odd_query", "path_trick", "smuggled"}
    assert {status for kind, status, _ in seen if kind == "good"} <= {200, 429}
    assert {status for kind, status, _ in seen if kind in ("foreign", "mistyped")} <= {400, 403, 415, 421, 429}
    assert after < 1.1 * before
    assert predict(port, GOOD) == expected, "the next good request is answered alike"
    assert ask(port, "/api/health")[0] == 200
    assert process.poll() is None
