"""Tables of images and labels, from Parquet files or the Hugging Face hub, through `datasets` (extra `hub`).

`datasets` keeps a table as memory-mapped Arrow files, so a row is read at random without its neighbours. Only the
columns' raw bytes are taken: its own image decoder never runs, nor does any code that came with a data set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.decoding import MAX_BYTES, refuse
from vitlab.data.images import read_file
from vitlab.data.sources import NotInShards, Sample, check_classes, fingerprint
from vitlab.errors import UserError

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
LABEL_NAMES = ("label", "labels", "fine_label", "cls", "class")
MAX_LABEL = 10**7


@dataclass(frozen=True)
class Columns:
    """The columns that the user names; None has them found by name and type."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True, eq=False)
class TableSource(NotInShards):
    """Rows of a table; see `sources.Source`. Keys are SPLIT/ROW.

    Attributes:
        images: the image column's chunks: Arrow arrays of binary, or of structs {bytes, path}.
        starts: the first row of each chunk, and the number of rows.
        files_allowed: whether a row without bytes may name a file; only where `datasets` itself wrote the path.
    """

    split: str
    images: tuple[Any, ...]
    starts: NDArray[np.int64]
    files_allowed: bool
    skipped: tuple[str, ...] = ()

    def key(self, index: int) -> str:
        """The split and the row; see `sources.Source.key`."""
        return f"{self.split}/{index}"

    def read(self, index: int) -> Sample:
        """The image of row `index`; see `sources.Source.read`."""
        name = f"{self.name}: row {index}"
        chunk = int(np.searchsorted(self.starts, index, side="right")) - 1
        cell = self.images[chunk][index - int(self.starts[chunk])]
        path = cell["path"].as_py() if "path" in cell.type.names else None
        data = cell["bytes"]
        if data.is_valid:
            if data.as_buffer().size > MAX_BYTES:
                raise refuse(name, f"{data.as_buffer().size:,} bytes are more than the {MAX_BYTES:,} that are read")
            return Sample(data.as_py(), int(self.labels_N[index]), name)
        if path is None or not self.files_allowed:
            raise refuse(name, "its cell holds no bytes" + ("" if path is None else f", only the path {path!r}"))
        return Sample(read_file(Path(path)), int(self.labels_N[index]), str(path))


def table_source(
    dataset: Any, split: str, name: str, columns: Columns, classes: tuple[str, ...] | None = None
) -> TableSource:
    """A source from one split's `datasets.Dataset`.

    Args:
        dataset: not filtered or reordered.
        split: its name; begins the keys.
        name: what the source is called.
        columns: those that the user named.
        classes: the training side's names, where they are known; a ClassLabel of other names is refused.

    Raises:
        UserError: a column is missing or of a wrong type; a label is below 0, outside the classes, missing, not a
            number, or text (the first such row is named); fewer than two classes.
    """
    image = _column(dataset, name, columns.image, "image", IMAGE_NAMES, _is_image)
    label = _column(dataset, name, columns.label, "label", LABEL_NAMES, _is_class)
    feature = dataset.features[label]
    own = tuple(feature.names) if _is_class(feature, None) else None
    if own is not None and classes is not None and own != classes:
        raise UserError(f"{name}: its classes in column '{label}' differ from the training side's; give both the same")
    known = classes or own
    labels_N = _labels(dataset.data.column(label), label, name, None if known is None else len(known))
    if known is None:
        known = tuple(map(str, range(int(labels_N.max()) + 1)))
    check_classes(name, known)
    chunks = tuple(_as_struct(chunk) for chunk in dataset.data.column(image).chunks if len(chunk))
    starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
    digest = fingerprint(known, _rows(chunks, split, labels_N))
    is_trusted = dataset.info.builder_name == "imagefolder"
    return TableSource(name, known, labels_N, digest, split, chunks, starts, files_allowed=is_trusted)


def _is_image(feature: Any, arrow: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(arrow):
        return "bytes" in arrow.names and _is_image(None, arrow.field("bytes").type)
    return bool(pyarrow.types.is_binary(arrow) or pyarrow.types.is_large_binary(arrow))


def _is_class(feature: Any, arrow: Any) -> bool:
    return type(feature).__name__ == "ClassLabel"


def _column(
    dataset: Any, name: str, wanted: str | None, what: str, usual: tuple[str, ...], fits: Callable[[Any, Any], bool]
) -> str:
    """The column that is meant: as the user says, or by a usual name, or the only one of the right type."""
    columns: list[str] = dataset.column_names
    listed = f"its columns are {', '.join(f'{column} ({_kind(dataset, column)})' for column in columns[:20])}"
    if wanted is not None and wanted not in columns:
        raise UserError(f"{name}: there is no column '{wanted}'; {listed}")
    types = {column: dataset.data.schema.field(column).type for column in columns}
    fitting = [column for column in columns if fits(dataset.features[column], types[column])]
    chosen = wanted or next((column for column in usual if column in columns), None)
    if chosen is None and len(fitting) == 1:
        chosen = fitting[0]
    if chosen is None:
        raise UserError(f"{name}: it has no clear {what} column; name one as SOURCE?{what}=COLUMN; {listed}")
    if what == "image" and chosen not in fitting:
        raise UserError(f"{name}: its column '{chosen}' holds no images; {listed}")
    return chosen


def _kind(dataset: Any, column: str) -> str:
    feature = dataset.features[column]
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind


def _labels(column: Any, label: str, name: str, known: int | None) -> NDArray[np.int64]:
    """The labels as numbers; the first row that has none is named."""
    import pyarrow

    limit = MAX_LABEL if known is None else known
    if len(column) == 0:
        raise UserError(f"{name}: it has no rows")
    if column.null_count:
        wrong_N = column.is_null().to_numpy()
    elif pyarrow.types.is_integer(column.type):
        values_N = column.to_numpy()
        wrong_N = (values_N < 0) | (values_N >= limit)
        if not wrong_N.any():
            return np.array(values_N, np.int64)
    elif pyarrow.types.is_floating(column.type) and np.isnan(column.to_numpy()).any():
        wrong_N = np.isnan(column.to_numpy())
    else:
        wrong_N = np.ones(1, bool)
    row = int(np.argmax(wrong_N))
    shown = repr(column[row].as_py())[:40]
    raise UserError(
        f"{name}: row {row} has the label {shown} in column '{label}' ({column.type}); "
        f"labels are whole numbers from 0 to {'classes - 1' if known is None else limit - 1}"
    )


def _as_struct(chunk: Any) -> Any:
    """An image chunk as structs with `bytes`, so that all are read alike."""
    import pyarrow

    return chunk if pyarrow.types.is_struct(chunk.type) else pyarrow.StructArray.from_arrays([chunk], ["bytes"])


def _rows(chunks: tuple[Any, ...], split: str, labels_N: NDArray[np.int64]) -> list[tuple[str, int, int]]:
    """Each row's key, size and label; the images' bytes are not touched."""
    import pyarrow.compute as pc

    sizes = [size for chunk in chunks for size in pc.fill_null(pc.binary_length(chunk.field("bytes")), 0).to_pylist()]
    rows = zip(sizes, labels_N.tolist(), strict=True)
    return [(f"{split}/{row}", size, label) for row, (size, label) in enumerate(rows)]
