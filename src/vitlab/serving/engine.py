"""The engines that run the model: PyTorch, or onnxruntime.

Shapes: B images of a batch, H W height and width, C colours, K classes.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vitlab import weights
from vitlab.data import loader
from vitlab.data.images import RGB
from vitlab.errors import UserError
from vitlab.models.build import Model, probabilities
from vitlab.runtime import Runtime

Engine = Callable[[RGB], NDArray[np.float32]]  # prepared images_BHWC -> probabilities_BK
EngineName = Literal["pytorch", "onnx"]


def torch_engine(model: Model, runtime: Runtime) -> Engine:
    """The model in PyTorch; it is moved to the device and set to evaluation mode."""
    model.eval().to(runtime.device)

    def run(images_BHWC: RGB) -> NDArray[np.float32]:
        with torch.inference_mode(), runtime.autocast():
            inputs_BCHW = loader.normalise(torch.from_numpy(images_BHWC), model.preprocessing, runtime.device)
            probabilities_BK: NDArray[np.float32] = probabilities(model(inputs_BCHW)).numpy()
        return probabilities_BK

    return run


def onnx_engine(model: Model) -> Engine:
    """The model as an ONNX graph on the CPU.

    Raises:
        UserError: its libraries are not installed, or the model cannot be exported to one file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError('the ONNX engine needs onnxruntime: pip install "vitlab[onnx]"') from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        weights.save_model(model, file, format="onnx")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(images_BHWC: RGB) -> NDArray[np.float32]:
        inputs_BCHW = loader.normalise(torch.from_numpy(images_BHWC), model.preprocessing)
        (logits_BK,) = session.run(["logits"], {"images": inputs_BCHW.numpy()})
        probabilities_BK: NDArray[np.float32] = probabilities(torch.from_numpy(logits_BK)).numpy()
        return probabilities_BK

    return run
