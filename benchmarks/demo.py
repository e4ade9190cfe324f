"""Times `vitlab demo` from nothing to the report, and stores what it reached: benchmarks/results/demo.json."""

import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from vitlab.runtime import choose, environment

RESULTS = Path(__file__).parent / "results" / "demo.json"


def main() -> None:
    """Run the demo in a folder of its own, once for each seed given on the command line, or for 0, 1 and 2."""
    runs = []
    for seed in map(int, sys.argv[1:] or ("0", "1", "2")):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "vitlab",
                "demo",
                "--out",
                folder + "/demo",
                "--seed",
                str(seed),
                "--json",
            ]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds = time.perf_counter() - begun
        runs.append({"seed": seed, "seconds": round(seconds, 1), **json.loads(printed)["numbers"]})
        print(runs[-1]["seconds"], runs[-1]["upstream_top1"], runs[-1]["downstream_top1"], file=sys.stderr)
    stored = {"measured": date.today().isoformat(), "environment": environment(choose()), "runs": runs}
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
