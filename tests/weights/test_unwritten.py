"""A model that cannot be written is told in one line, and leaves nothing behind."""

import resource

import pytest
from safetensors import SafetensorError

from vitlab.errors import UserError
from vitlab.weights import save_model
from vitlab.weights.formats import native
from weights.helpers import tiny


@pytest.mark.parametrize("format", ["vitlab", "timm", "transformers", "flax", "torchvision"])
def test_a_disk_that_takes_no_more_is_one_line(format, tmp_path):
    """The system itself refuses the file, and safetensors tells of it in its own way."""
    model = tiny(image_size=32, gelu="erf" if format == "torchvision" else "tanh")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(UserError, match="File too large: free some space") as error:
            save_model(model, tmp_path / "model", format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(error.value).startswith(f"cannot write the model to {tmp_path / 'model'}: ")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the model to .*: (File exists|Not a directory): "):
        save_model(tiny(), tmp_path / "file" / "model")


def test_what_is_no_mistake_of_the_disk_is_told_as_it_is(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise SafetensorError("Error while serializing: unknown dtype")

    monkeypatch.setattr(native, "save_file", fail)
    with pytest.raises(SafetensorError, match="unknown dtype"):
        save_model(tiny(), tmp_path / "model")
