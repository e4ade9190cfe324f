"""ONNX out: one file, any batch size, at the opset of PyTorch's exporter."""

import contextlib
import json
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.weights.formats.exporting import write_file
from vitlab.weights.formats.native import description_of
from vitlab.weights.readers.onnx import ARRAYS_KEY, CONFIG_KEY

# A protocol buffer ends at 2 GiB; some of it is the graph.
MOST_BYTES = 2**31 - 2**26
INPUT, OUTPUT = "images", "logits"


def save(model: Model, path: Path) -> None:
    """Write the model as it evaluates: input `images` (batch, 3, height, width), normalised; output `logits`.

    The file's metadata has vitlab's config.json under "vitlab", and the arrays keep their names, so that `load_model`
    reads the model back.

    Raises:
        UserError: onnx or onnxscript is not installed, the model is too large for one file, or `path` is a folder.
    """
    size = sum(array.numel() * array.element_size() for array in model.state_dict().values())
    if size > MOST_BYTES:
        raise UserError(f"onnx holds at most 2 GiB in one file, this model has {size / 2**30:.1f} GiB; use vitlab")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"onnx needs {error.name}; install it with `pip install 'vitlab[onnx]'`") from error
    graph = _exported(model)
    _shield_zero_padding(graph)
    _forget_origin(graph)
    names = list(model.state_dict())
    lost = set(names) - {array.name for array in graph.graph.initializer}
    assert not lost, f"the exporter of PyTorch {torch.__version__} has lost {sorted(lost)}"
    for key, value in ((CONFIG_KEY, description_of(model)), (ARRAYS_KEY, names)):
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    write_file(path, graph.SerializeToString(), example="model.onnx")


def _exported(model: Model) -> Any:
    """The ONNX graph, with a symbolic batch size. The model is left as it was."""
    import onnxscript.optimizer

    height, width = model.config.image_hw
    # Two images: PyTorch treats a batch size of one as a constant.
    example = torch.zeros(2, 3, height, width, device=next(model.parameters()).device)
    batch = torch.export.Dim("batch")
    with _evaluating(model), warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        # PyTorch's exporter warns of deprecations inside itself.
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},), strict=True)
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
            optimize=False,
        )
        assert made is not None
        # Not torch's own optimisation, which folds, merges and drops parameters: the file could not be read back.
        onnxscript.optimizer.inline(made.model)
        onnxscript.optimizer.fold_constants(made.model, should_fold=_keeping(model.state_dict().keys()))
        onnxscript.optimizer.remove_unused_nodes(made.model)
    graph = made.model_proto
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return graph


def _keeping(names: Collection[str]) -> Callable[[Any], bool | None]:
    """A rule for the optimiser: no parameter is folded into another array; onnxruntime does so when it loads a file."""
    return lambda node: False if any(value is not None and value.name in names for value in node.inputs) else None


@contextlib.contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _shield_zero_padding(graph: Any) -> None:
    """Keep onnxruntime from merging BiT's zero padding into the pooling after it, which would pad with -inf.

    A maximum over one input changes nothing, and no rule of its optimiser looks through it.
    """
    nodes = graph.graph.node
    padded = {node.output[0] for node in nodes if node.op_type == "Pad"}
    for index, node in reversed(list(enumerate(nodes))):
        if node.op_type == "MaxPool" and node.input[0] in padded:
            shield = type(node)(op_type="Max", name=f"{node.name}_shield", input=[node.input[0]])
            shield.output.append(f"{node.input[0]}_shielded")
            node.input[0] = shield.output[0]
            nodes.insert(index, shield)


def _forget_origin(graph: Any) -> None:
    """Remove what the exporter notes for its own developers: paths and lines of this machine's source files."""
    inner = graph.graph
    for message in (graph, inner, *inner.node, *inner.input, *inner.output, *inner.value_info, *inner.initializer):
        message.ClearField("metadata_props")
        message.ClearField("doc_string")
