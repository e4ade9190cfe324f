"""Whether a wheel holds every file of the package: `python tools/check_wheel.py dist/vitlab-0.2.0-py3-none-any.whl`."""

import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


def missing_from(wheel: Path) -> list[str]:
    """The files of the package that the wheel lacks, as they are called in it."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    files = (path for path in SOURCE.joinpath("vitlab").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted({path.relative_to(SOURCE).as_posix() for path in files} - packed)


if __name__ == "__main__":
    missing = missing_from(Path(sys.argv[1]))
    if missing:
        sys.exit(f"{sys.argv[1]} does not contain {', '.join(missing[:5])}")
