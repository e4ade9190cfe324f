"""Weights from the Hugging Face hub: hf://owner/name, cached by huggingface_hub."""

import re
from pathlib import Path

from vitlab.errors import UserError

PREFIX = "hf://"
ID = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
# SourceSettings and safetensors first; the others only where a repository has no safetensors.
WANTED = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
OTHERWISE = ["pytorch_model.bin", "pytorch_model*.bin", "pytorch_model.bin.index.json", "*.npz"]


def is_id(source: str) -> bool:
    """Whether `source` names a hub repository."""
    return source.startswith(PREFIX)


def download(source: str) -> Path:
    """The folder of a hub repository's weights, from the cache where possible.

    Args:
        source: hf://owner/name, or hf://owner/name@revision.

    Raises:
        UserError: not an id, huggingface_hub is not installed, or the repository cannot be reached.
    """
    match = ID.fullmatch(source)
    if match is None:
        raise UserError(f"{source}: is not a hub id; write hf://owner/name or hf://owner/name@revision")
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise UserError(f"{source}: needs huggingface_hub; install it with `pip install 'vitlab[hub]'`") from error
    name, revision = match.groups()
    try:
        folder = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=WANTED))
        if not any(folder.glob("*.safetensors")):
            folder = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=OTHERWISE + WANTED))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(_message(source, error)) from error
    return folder


def _message(source: str, error: Exception) -> str:
    kind = type(error).__name__
    if "NotFound" in kind and "Local" not in kind:
        return f"{source}: no such repository or revision on the hub, or it is private; check the name"
    return (
        f"{source}: is not in the local cache and the hub cannot be reached ({kind}); go online once, "
        "or give the path of a folder with its files"
    )
