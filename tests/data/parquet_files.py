"""Parquet files of tiny images, with the features that `datasets` would note in them."""

import json

import pyarrow
import pyarrow.parquet

import datasets
from data.layouts import jpeg

CELL = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def table(labels, kind=None, names=None, image="image", label="label", cells=None, more=None):
    """A table of tiny images, one for each label, with the features that `datasets` would note in it."""
    cells = [{"bytes": jpeg(row), "path": f"{row}.jpg"} for row in range(len(labels))] if cells is None else cells
    columns = {image: pyarrow.array(cells, CELL), label: pyarrow.array(labels, kind), **(more or {})}
    found = pyarrow.table(columns)
    features = {image: {"_type": "Image"}}
    if names is not None:
        features[label] = {"names": names, "_type": "ClassLabel"}
    else:
        plain = datasets.Features.from_arrow_schema(found.schema)
        features |= {name: plain[name].__dict__ | {"_type": "Value"} for name in [label]}
    for name in more or {}:
        features[name] = datasets.Features.from_arrow_schema(found.schema)[name].__dict__ | {"_type": "Value"}
    features = {
        name: {key: value for key, value in kept.items() if key in ("_type", "names", "dtype")}
        for name, kept in features.items()
    }
    note = json.dumps({"info": {"features": features}})
    return found.replace_schema_metadata({"huggingface": note})


def put(path, *arguments, rows_a_group=7, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table(*arguments, **options), path, row_group_size=rows_a_group)
    return path
