"""Other libraries as oracles; imported once, with the warnings of their imports kept out of the tests."""

import importlib
import warnings

import pytest

from vitlab.weights.parity import declare_torchvision_operators


def _import(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        declare_torchvision_operators()
        return importlib.import_module(name)


@pytest.fixture(scope="session")
def timm():
    return _import("timm")


@pytest.fixture(scope="session")
def transformers():
    library = _import("transformers")
    library.utils.logging.disable_progress_bar()
    return library


@pytest.fixture(scope="session")
def torchvision_vit():
    return _import("torchvision.models.vision_transformer")
