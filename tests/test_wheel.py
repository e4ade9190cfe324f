"""`make dist` notices when the wheel lacks a file of the package."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("lost", [None, "vitlab/datasets/bundled/digits/test.tar.xz", "vitlab/py.typed"])
def test_a_wheel_that_lacks_a_file_is_refused(tmp_path, lost):
    wheel = tmp_path / "vitlab.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in ROOT.joinpath("src", "vitlab").rglob("*"):
            name = path.relative_to(ROOT / "src").as_posix()
            if path.is_file() and name != lost:
                archive.writestr(name, b"")
    checked = subprocess.run(
        [sys.executable, ROOT / "tools" / "check_wheel.py", wheel], check=False, capture_output=True, text=True
    )
    assert checked.stderr.splitlines() == ([f"{wheel} does not contain {lost}"] if lost else [])
    assert checked.returncode == (1 if lost else 0)
