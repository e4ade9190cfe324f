"""hf://owner/name through huggingface_hub's own cache, with the network out of reach."""

import os
import subprocess
import sys

import pytest

from vitlab.errors import UserError
from vitlab.weights import load_model, save_model
from weights.helpers import tiny

COMMIT = "a" * 40
SCRIPT = """
import sys
from vitlab.errors import UserError
from vitlab.weights import load_model
try:
    print(load_model(sys.argv[1]).config.hidden)
except UserError as error:
    print(error)
"""


def cached(home, name, format):
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    if format == "flax":
        (repository / "snapshots" / COMMIT).mkdir()
        save_model(tiny(), repository / "snapshots" / COMMIT / "weights.npz", format=format)
    else:
        save_model(tiny(), repository / "snapshots" / COMMIT, format=format)


def run(source, home):
    """In a process of its own: huggingface_hub reads its settings when it is imported."""
    environment = dict(os.environ, HF_HOME=str(home), HF_HUB_OFFLINE="1")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, source],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


@pytest.mark.long
@pytest.mark.parametrize("format", ["vitlab", "timm", "transformers", "flax"])
def test_what_is_in_the_cache_is_loaded_offline(format, tmp_path):
    cached(tmp_path, "owner/name", format)
    assert run("hf://owner/name", tmp_path) == "128"


@pytest.mark.long
def test_what_is_not_in_the_cache_is_one_clear_line_offline(tmp_path):
    cached(tmp_path, "owner/name", "vitlab")
    for source in ("hf://owner/other", "hf://owner/name@v2"):
        message = run(source, tmp_path)
        assert message.startswith(f"{source}: is not in the local cache and the hub cannot be reached")
        assert "\n" not in message


@pytest.mark.parametrize("source", ["hf://", "hf://name", "hf://a/b/c", "hf://../../etc", "hf://a/b@", "hf://a b/c"])
def test_what_is_no_id_is_told_so(source):
    with pytest.raises(UserError, match="is not a hub id; write hf://owner/name"):
        load_model(source)
