"""Times a sweep over 30 penalties and one fit of scikit-learn's RidgeClassifier: benchmarks/results/fewshot.json.

The data is the same for both: 1,000 classes x 10 images x 768 features. The sweep computes all 30 weight matrices, not
just the decomposition. The contestants take turns, so that other load on the machine affects all of them, and pause in
between, because the threads of torch and those of numpy's library, which scikit-learn uses, slow each other down while
they wait for work. The first turn of each is a warm-up and does not count.
"""

import json
import statistics
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.linear_model import RidgeClassifier

from vitlab.evaluation.fewshot import PENALTIES
from vitlab.evaluation.least_squares import factorise
from vitlab.runtime import choose, environment

RESULTS = Path(__file__).parent / "results" / "fewshot.json"
CLASSES, SHOTS, WIDTH, ROUNDS = 1000, 10, 768, 9
PAUSE = 0.1  # seconds, after which the previous contestant's threads no longer spin


def data():
    """Features in float32: a cluster per class."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), SHOTS)
    centres = random.standard_normal((CLASSES, WIDTH))
    return np.float32(centres[labels] + 2 * random.standard_normal((len(labels), WIDTH))), labels


def solved(features, labels, dtype):
    factors = factorise(features, labels, CLASSES, dtype)
    for penalty in PENALTIES:
        factors.at(penalty)


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main():
    features, labels = data()
    contestants = {
        "vitlab_float64_sweep_of_30": lambda: solved(features, labels, torch.float64),
        "vitlab_float32_sweep_of_30": lambda: solved(features, labels, torch.float32),
        "sklearn_ridge_classifier_float64": lambda: RidgeClassifier(1024.0).fit(features.astype(np.float64), labels),
        "sklearn_ridge_classifier_float32": lambda: RidgeClassifier(1024.0).fit(features, labels),
    }
    seconds = {name: [] for name in contestants}
    for number in range(1 + ROUNDS):
        for name, function in contestants.items():
            time.sleep(PAUSE)
            taken = timed(function)
            if number:
                seconds[name].append(taken)
    medians = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    stored = {
        "measured": date.today().isoformat(),
        "classes": CLASSES, "shots": SHOTS, "width": WIDTH, "rounds": ROUNDS,
        "environment": {**environment(choose("cpu")), "scikit-learn": sklearn.__version__},
        "median_seconds": medians,
        "seconds": {name: [round(second, 3) for second in times] for name, times in seconds.items()},
        "ratio_float64": round(medians["vitlab_float64_sweep_of_30"] / medians["sklearn_ridge_classifier_float64"], 3),
        "ratio_float32": round(medians["vitlab_float32_sweep_of_30"] / medians["sklearn_ridge_classifier_float32"], 3),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")
    print(json.dumps(medians, indent=1), stored["ratio_float64"], stored["ratio_float32"], file=sys.stderr)


if __name__ == "__main__":
    main()
