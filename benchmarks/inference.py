"""The paper's Figure 12 on this machine, in small: benchmarks/results/inference.json.

On a GPU `vitlab bench inference --plot inference.png` makes the complete figure; this is a selection for a CPU.
"""

import contextlib
import io
import json
import os
from datetime import date
from pathlib import Path

from vitlab.cli.main import main as vitlab

RESULTS = Path(__file__).parent / "results" / "inference.json"
WORDS = (
    "bench inference --models ViT-Ti/16,ViT-S/16,BiT-R50x1 --sizes 64,128,224 --batches 1,8 "
    "--repetitions 3 --device cpu --json"
)


def main():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert vitlab(WORDS.split()) == 0
    found = json.loads(printed.getvalue())["numbers"]
    # Other work on the machine lowers every throughput; the load average shows how much there was.
    about = {"date": date.today().isoformat(), "command": "vitlab " + WORDS, "load_average": os.getloadavg()[0]}
    RESULTS.write_text(json.dumps({**about, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
