"""Thousands of damaged images and shards: an image or one line each; VITLAB_MUTATIONS=100000 for the nightly size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.mutate import KINDS

COUNT = int(os.environ.get("VITLAB_MUTATIONS", "5000"))
SCRIPT = Path(__file__).with_name("mutate.py")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_never_escapes(kind):
    """In a process of its own: a crash of a decoder or a hang is seen, and memory is its own."""
    count = -(-COUNT // len(KINDS))
    ran = subprocess.run([sys.executable, SCRIPT, kind, str(count), "1"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    images, refused = map(int, ran.stdout.split())
    assert images + refused == count
    assert images > 0  # some damage is harmless, and some is not: the loop has really decoded
    assert refused > count // 20
