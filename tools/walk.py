"""How far a command walks through the house: `python tools/walk.py [WORDS OF A COMMAND ...]`.

Runs `vitlab pretrain demo-upstream --steps 3` (or the given words) in this process and prints, as JSON, the files of
the package in which a function was entered, the deepest chain of the package's own frames from `main` to the forward
pass of a transformer block, and what the source as a whole weighs.
"""

import ast
import contextlib
import json
import sys
import tempfile
import threading
from pathlib import Path
from types import CodeType, FrameType

import vitlab
from vitlab.cli.main import main

PACKAGE = Path(vitlab.__file__).resolve().parent
LONGEST = 40  # lines of a function, its signature and docstring included
MAIN, BLOCK_FORWARD = "cli/main.py:main", "Block.forward"


class Walk:
    """Notes what is entered, in every thread."""

    def __init__(self) -> None:
        self.functions: dict[CodeType, str] = {}
        self.files: set[str] = set()
        self.imported: set[str] = set()
        self.chain: list[str] = []

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """A profile function: called whenever a function is entered."""
        if event != "call":
            return
        if not self.chain and frame.f_code.co_qualname == BLOCK_FORWARD:
            self.chain = _chain(frame)
        if frame.f_code in self.functions:
            return
        name = _inside(frame.f_code)
        self.functions[frame.f_code] = name
        if not name:
            return
        (self.imported if frame.f_code.co_name == "<module>" else self.files).add(name)


def _inside(code: CodeType) -> str:
    path = Path(code.co_filename)
    return str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else ""


def _chain(frame: FrameType | None) -> list[str]:
    """The package's own frames from `main` on; none where the thread did not begin there."""
    names = []
    while frame is not None:
        if name := _inside(frame.f_code):
            names.append(f"{name}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    names.reverse()
    return names if names[0] == MAIN else []  # elsewhere: a thread of its own, which main waits for


def long_functions() -> list[str]:
    """Functions of the package with more than `LONGEST` lines."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST:
                    found.append(f"{path.relative_to(PACKAGE)}:{node.name} ({lines})")
    return found


def measure(words: list[str]) -> dict[str, object]:
    """Walk through the command, and weigh the source."""
    walk = Walk()
    threading.setprofile_all_threads(walk.note) if sys.version_info >= (3, 12) else threading.setprofile(walk.note)
    sys.setprofile(walk.note)
    with contextlib.redirect_stdout(sys.stderr):
        code = main(words)
    sys.setprofile(None)
    sources = list(PACKAGE.rglob("*.py"))
    return {
        "command": words,
        "exit code": code,
        "files entered": len(walk.files),
        "files imported": len(walk.imported | walk.files),
        "files": sorted(walk.files),
        "frames from main to a block's forward": len(walk.chain),
        "frames": walk.chain,
        "python files": len(sources),
        "python lines": sum(path.read_text(encoding="utf-8").count("\n") for path in sources),
        f"functions over {LONGEST} lines": long_functions(),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        given = sys.argv[1:] or ["pretrain", "demo-upstream", "--steps", "3", "--out", str(Path(folder) / "run")]
        print(json.dumps(measure(given), indent=1))
