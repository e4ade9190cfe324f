"""A warm parent for all trials of a module, and a fast folder for each test."""

import pytest

from faults.farm import WAYS, fast_folder, fingerprint, warm_farm


@pytest.fixture(scope="module")
def farm():
    with warm_farm() as running:
        yield running


@pytest.fixture
def folder():
    with fast_folder() as made:
        yield made


@pytest.fixture(scope="module")
def uninterrupted(farm, tmp_path_factory):
    """By way: the fingerprint of a run that was left alone, and how long it took."""
    found = {}
    for way, (ranks, changes) in WAYS.items():
        path = tmp_path_factory.mktemp("alone") / "run"
        outcome = farm.run(path, ranks=ranks, changes=changes)
        assert outcome.codes == [0] * ranks, (path.parent / "run.log").read_text()
        found[way] = fingerprint(path), max(outcome.seconds)
    return found
