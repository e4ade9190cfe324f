"""`vitlab dedup --train SOURCE --test SOURCE`: test images in a training set, and a list of what to leave out."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from vitlab import files, weights
from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.data.sources import Source
from vitlab.datasets.catalog import open_source
from vitlab.dedup.clean_list import write_clean_list
from vitlab.dedup.duplicates import DETECTORS, Pair, later_duplicates, parse_thresholds
from vitlab.dedup.pair_sheet import Shown, pair_sheet
from vitlab.dedup.search import Embedding, Search, SearchResult, check_search, join, read_references, run_blocks
from vitlab.dedup.signatures import Signatures, why_unreadable
from vitlab.errors import UserError
from vitlab.evaluation.features import features_of
from vitlab.models.build import model_digest
from vitlab.progress import show_progress
from vitlab.results import Cell, ResultTable, percent, write_table
from vitlab.runtime import choose

DEFAULT_OUT = Path("runs/dedup")
SHOWN_OF_EACH = 16  # pairs of each detector on the sheet

app = options.new_app()


@app.command()
def dedup(
    train: Annotated[str, typer.Option(metavar="SOURCE", help="Training images.")],
    test: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Test images; may be given several times. Without it, duplicates "
                     "within the training images are searched for."),
    ] = None,
    method: Annotated[
        Literal["hash", "embedding", "both"],
        typer.Option(help="hash: compare small pictures. embedding: compare a model's features. Exact "
                     "duplicates are always found."),
    ] = "hash",
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="The model for --method embedding.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the results.")] = DEFAULT_OUT,
    thresholds: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="near=1.0: largest distance of small pictures. radius=10: "
                     "bits in which candidates' hashes may differ. cosine=0.95: smallest similarity of features."),
    ] = None,
    rank: Annotated[int | None, typer.Option(min=0, help="Do this share of the work only, and stop.")] = None,
    ranks: Annotated[int, typer.Option(min=1, help="Number of shares that the work is divided into.")] = 1,
    bad_images: options.BadImagesOption = "refuse",
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:  # fmt: skip
    """Find training images that repeat test images, and write a clean list that training accepts."""
    if rank is not None and rank >= ranks:
        raise UserError(f"--rank {rank}: with --ranks {ranks} there are the shares 0 to {ranks - 1}")
    search = Search(
        open_source(train, "train"), tuple(open_source(name, "test") for name in test or []), method != "embedding",
        _embedding(method, model, device), parse_thresholds(thresholds or []), out / "parts", bad_images,
    )  # fmt: skip
    show(_run(search, out, rank, ranks), as_json=as_json)


def _run(search: Search, out: Path, rank: int | None, ranks: int) -> ResultTable:
    """The search, or one share of it."""
    check_search(search)
    with show_progress("test images" if search.tests else "images", sum(map(len, search.references))) as shown:
        references = read_references(search, shown.update)
    with show_progress("training images", len(search.train)) as shown:
        images = run_blocks(search, references, shown.update, rank=rank or 0, ranks=1 if rank is None else ranks)
    if rank is not None:
        return _share_table(search, rank, ranks, images)
    return _write(search, join(search), references, out)


def _embedding(method: str, model: str | None, device: str) -> Embedding | None:
    if method == "hash":
        if model is not None:
            raise UserError(f"--model {model}: only --method embedding and --method both use a model")
        return None
    if model is None:
        raise UserError(f"--method {method} compares a model's features: name one with --model MODEL")
    loaded, runtime = weights.load_model(model), choose(device)

    def features(source: Source) -> NDArray[np.float32]:
        return features_of(loaded, source, loaded.preprocessing, runtime)[0]

    return Embedding(f"{loaded.preprocessing} {model_digest(loaded)} {runtime.compute}", features, runtime.device)


def _share_table(search: Search, rank: int, ranks: int, images: int) -> ResultTable:
    return ResultTable(
        f"Share {rank} of {ranks} of {search.train.name}",
        ["", "images"],
        [["compared", images], ["of", len(search.train)]],
        notes=["When every share is done, run the same command without --rank: it joins them."],
        numbers={"rank": rank, "ranks": ranks, "compared": images, "images": len(search.train)},
    )


def _write(search: Search, found: SearchResult, references: Signatures, out: Path) -> ResultTable:
    """Writes the list of pairs, the sheet, the clean list and the table."""
    removed = sorted({pair.train for pair in found.pairs}) if search.tests else later_duplicates(found.pairs)
    table = _table(search, found, references, removed, out)
    files.write_bytes(out / "duplicates.csv", _csv(search, found.pairs).encode(errors="surrogateescape"))
    (out / "pairs.png").unlink(missing_ok=True)
    if found.pairs:
        _draw(search, found.pairs, out / "pairs.png")
    reason = {
        "tests": [{"source": test.name, "fingerprint": test.fingerprint} for test in search.tests],
        "near": search.near,
        "embedding": None if search.embedding is None else search.embedding.key,
        "thresholds": asdict(search.thresholds),
    }
    write_clean_list(out / "clean.json", search.train, removed, reason)
    write_table(table, out / "results" / "dedup.json")
    return table


def _table(search: Search, found: SearchResult, references: Signatures, removed: list[int], out: Path) -> ResultTable:
    """Test images that are in the training set: by test set, and by the most certain detector that found each."""
    rows: list[list[Cell]] = []
    numbers: dict[str, object] = {}
    start = 0
    for source in search.references:
        mine = [pair for pair in found.pairs if start <= pair.test < start + len(source)]
        best_by_image: dict[int, int] = {}
        for pair in mine:
            image, certainty = pair.test if search.tests else pair.train, DETECTORS.index(pair.detector)
            best_by_image[image] = min(certainty, best_by_image.get(image, certainty))
        counts = Counter(best_by_image.values())
        by_detector = {name: counts[number] for number, name in enumerate(DETECTORS)}
        share = percent(len(best_by_image) / len(source))
        rows.append([source.name, len(source), *by_detector.values(), len(best_by_image), share])
        bad = int((~references["readable"][start : start + len(source)]).sum()) if search.tests else 0
        numbers[source.name] = {
            "images": len(source), "copied": len(best_by_image), "by_detector": by_detector,
            "pairs": len(mine), "skipped": bad,
        }  # fmt: skip
        start += len(source)
    what = "Test images" if search.tests else "Images"
    numbers |= {"train": {"images": len(search.train), "removed": len(removed), "skipped": len(found.unreadable)}}
    return ResultTable(
        title=f"{what} that are also in {search.train.name}"
        if search.tests
        else f"Duplicates within {search.train.name}",
        summary="Each image is counted once, under the most certain detector that found it.",
        columns=["test set" if search.tests else "set", "images", *DETECTORS, "total", "share"],
        rows=rows,
        notes=_notes(search, found, references, len(removed), out),
        numbers=numbers,
    )


def _notes(search: Search, found: SearchResult, references: Signatures, removed: int, out: Path) -> list[str]:
    notes = []
    if search.tests:
        bad = np.flatnonzero(~references["readable"]).tolist()
        notes += _skipped(*_place(search, bad[0]), len(bad)) if bad else []
    if found.unreadable:
        notes += _skipped(search.train, found.unreadable[0], len(found.unreadable))
    images = f"{len(search.train):,} training images"
    if not found.pairs:
        return [*notes, f"Nothing to remove: none of the {images} is a duplicate."]
    return [
        *notes,
        f"Look at {out / 'pairs.png'}; every pair is in {out / 'duplicates.csv'}.",
        f"{removed:,} of the {images} should be left out: train with --set data.exclude={out / 'clean.json'}",
    ]


def _skipped(source: Source, index: int, count: int) -> list[str]:
    return [f"skipped {count:,} {'image' if count == 1 else 'images'} of {source.name}; the first is "
            f"{why_unreadable(source, index)}"]  # fmt: skip


def _place(search: Search, number: int) -> tuple[Source, int]:
    """The test set, and the index in it, of an image numbered through all of them."""
    for source in search.references:
        if number < len(source):
            return source, number
        number -= len(source)
    raise AssertionError(number)


def _csv(search: Search, pairs: Sequence[Pair]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["train_index", "train_image", "test_set", "test_index", "test_image", "detector", "distance", "mirrored"]
    )
    for pair in pairs:
        source, index = _place(search, pair.test)
        writer.writerow([
            pair.train, search.train.key(pair.train), source.name, index, source.key(index), pair.detector,
            f"{pair.distance:.4f}", "yes" if pair.mirrored else "no",
        ])  # fmt: skip
    return text.getvalue()


def _draw(search: Search, pairs: Sequence[Pair], path: Path) -> None:
    """The least certain pairs of each detector, the least certain detector's first: those should be checked."""
    shown: list[Shown] = []
    for detector in reversed(DETECTORS):
        mine = sorted((pair for pair in pairs if pair.detector == detector), key=lambda pair: -pair.distance)
        for pair in mine[:SHOWN_OF_EACH]:
            source, index = _place(search, pair.test)
            distance = "" if detector in ("file", "pixels") else f" {pair.distance:.2f}"
            shown.append(Shown(
                (search.train, pair.train), (source, index),
                f"{detector}{distance}{', mirrored' if pair.mirrored else ''}",
            ))  # fmt: skip
    right = "test images" if search.tests else "the earlier image"
    title = f"{len(shown):,} of {len(pairs):,} pairs, the least certain first: left training images, right {right}"
    picture = io.BytesIO()
    pair_sheet(title, shown).save(picture, format="PNG")
    files.write_bytes(path, picture.getvalue())
