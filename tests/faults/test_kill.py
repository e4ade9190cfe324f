"""Runs that are killed again and again end with the same bytes as runs that never were."""

import os
import random
import signal

import pytest

from faults.farm import WAYS, fingerprint
from faults.trial import FAULTS

KILLS = int(os.environ.get("VITLAB_KILLS", "20"))
KILLS_A_RUN = 3
# Finished, told that another was lost, saved on the agent's request, killed, ended by the request before it could save.
ENDS = {0, 1, 143, -signal.SIGKILL, -signal.SIGTERM}


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_killed_runs_end_with_the_same_bytes(farm, uninterrupted, folder, way):
    ranks, changes = WAYS[way]
    expected, seconds = uninterrupted[way]
    draw, kills, number = random.Random(way), 0, 0  # seeded by the way's name
    while kills < KILLS / len(WAYS):
        path = folder / f"run-{number}"
        killed_here, number = 0, number + 1
        codes = None
        while codes != [0] * ranks:
            # Kills come in all phases: start, the first steps, in and between saves, evaluation, the end.
            moment = [[draw.uniform(0, seconds), signal.SIGKILL, draw.randrange(ranks)]]
            codes = farm.run(path, ranks=ranks, changes=changes, signals=moment * (killed_here < KILLS_A_RUN)).codes
            assert set(codes) <= ENDS, (codes, (folder / f"{path.name}.log").read_text())
            killed_here += -signal.SIGKILL in codes
        kills += killed_here
        assert fingerprint(path) == expected
        assert not list((path / "checkpoints").glob(".*"))


@pytest.mark.parametrize("fault", [name for name in FAULTS if name.startswith("forget")])
def test_forgetting_any_part_of_the_state_shows(farm, uninterrupted, folder, fault):
    """The negative control: the comparison above would notice."""
    expected, _ = uninterrupted["one process"]
    first = farm.run(folder / "run", faults=["rank 0 dies"])
    assert first.codes == [-signal.SIGKILL]
    assert farm.run(folder / "run", faults=[fault]).codes == [0]
    try:
        same = fingerprint(folder / "run") == expected
    except AssertionError:
        same = False
    assert not same
