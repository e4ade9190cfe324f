"""One small server for all tests that leave it as it was."""

import pytest

from serving.servers import serving, small_model


@pytest.fixture(scope="session")
def model():
    return small_model()


@pytest.fixture(scope="session")
def port(model):
    with serving(model) as port:
        yield port
