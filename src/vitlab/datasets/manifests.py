"""Split manifests: which samples a split holds, in which order, each pinned by the SHA-256 of its bytes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from vitlab.data.block_cache import BlockCache
from vitlab.data.sources import LabelledSource, Sample, SelectedSource, Source, select
from vitlab.errors import UserError
from vitlab.files import write_text

MAX_MANIFEST = 2**30
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Manifest:
    """A split, pinned.

    Attributes:
        data, split: what it divides and which split it is.
        samples: (key, SHA-256 of the image's bytes) of each sample, in order; keys are those of `Source.key`.
        sha256: over the samples, see `digest`.
    """

    data: str
    split: str
    samples: tuple[tuple[str, Hash], ...]
    sha256: Hash
    format: Literal["vitlab-split"] = "vitlab-split"
    version: Literal[1] = 1


_ADAPTER = TypeAdapter(Manifest)


def digest(samples: Sequence[tuple[str, str]]) -> str:
    """SHA-256 over the samples as compact JSON: what pins an entire split."""
    text = json.dumps([list(sample) for sample in samples], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def make_manifest(source: Source, data: str, split: str) -> Manifest:
    """A manifest of every sample of a source; each is read.

    Raises:
        UserError: a sample cannot be read.
    """
    samples = tuple(
        (source.key(index), hashlib.sha256(source.read(index).encoded).hexdigest()) for index in range(len(source))
    )
    return Manifest(data, split, samples, digest(samples))


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes a manifest as JSON, completely or not at all."""
    write_text(path, _ADAPTER.dump_json(manifest).decode() + "\n")


def read_manifest(path: Path, sha256: str | None = None) -> Manifest:
    """Reads a manifest, and checks its hash.

    Args:
        path: the JSON file.
        sha256: its expected hash, where that is known.

    Raises:
        UserError: it is missing, malformed, larger than 1 GiB, was changed after it was written, names a sample twice,
            or is not the expected one.
    """
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise UserError(f"{path}: this manifest is larger than 1 GiB; write it again")
        manifest = _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); check the file and its permissions") from error
    except ValidationError as error:
        raise UserError(f"{path}: this is not a split manifest of version 1; write it again") from error
    found = digest(manifest.samples)
    if found != manifest.sha256:
        raise UserError(f"{path}: it was changed after it was written (its hash is {found[:12]}...); download it again")
    if sha256 is not None and found != sha256:
        raise UserError(f"{path}: its hash is {found[:12]}..., {sha256[:12]}... is expected; use the right manifest")
    if len({key for key, _ in manifest.samples}) != len(manifest.samples):
        raise UserError(f"{path}: it names a sample twice; write it again")
    return manifest


@dataclass(frozen=True, eq=False)
class PinnedSource(LabelledSource):
    """The samples of a manifest; see `sources.Source`. A sample whose bytes differ from the pinned ones is refused.

    The fingerprint covers the manifest's own hash and the labels: pixels are pinned too.
    """

    shards_N: NDArray[np.int64] | None
    skipped: tuple[str, ...]
    base: SelectedSource
    manifest: Manifest

    def key(self, index: int) -> str:
        """The sample's key; see `sources.Source.key`."""
        return self.manifest.samples[index][0]

    def read(self, index: int) -> Sample:
        """The sample at `index`; see `sources.Source.read`.

        Raises:
            UserError: also where its bytes are not those that the manifest pins.
        """
        sample = self.base.read(index)
        found, pinned = hashlib.sha256(sample.encoded).hexdigest(), self.manifest.samples[index][1]
        if found != pinned:
            raise UserError(f"{sample.name}: its SHA-256 is {found[:12]}..., the manifest pins {pinned[:12]}...")
        return sample

    def with_block_cache(self, cache: BlockCache) -> "PinnedSource":
        """The same samples; see `sources.Source.with_block_cache`."""
        return replace(self, base=self.base.with_block_cache(cache))


def pin(manifest: Manifest, sources: Sequence[Source], name: str) -> PinnedSource:
    """The samples that a manifest names, from sources that hold them.

    Args:
        manifest: names the samples.
        sources: of the same classes; together they hold every sample of the manifest.
        name: what the result is called.

    Raises:
        UserError: a sample is not in any of the sources.
    """
    places = {
        source.key(index): (number, index) for number, source in enumerate(sources) for index in range(len(source))
    }
    missing = next((key for key, _ in manifest.samples if key not in places), None)
    if missing is not None:
        raise UserError(f"{name}: its manifest names {missing[:80]!r}, which the data set does not hold")
    order = [places[key] for key, _ in manifest.samples]
    runs: list[tuple[Source, list[int]]] = []
    for number, index in order:
        if not runs or runs[-1][0] is not sources[number]:
            runs.append((sources[number], []))
        runs[-1][1].append(index)
    if not runs:
        raise UserError(f"{name}: its manifest names no sample")
    base = select(name, runs)
    pinned = hashlib.sha256(manifest.sha256.encode() + base.labels_N.astype("<i8").tobytes()).hexdigest()
    return PinnedSource(name, base.classes, base.labels_N, pinned, base.shards_N, base.skipped, base, manifest)
