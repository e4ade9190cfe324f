"""Flax checkpoints in .npz: the original ViT's, Linen's and big_vision's, with scanned layers, hybrids and BiT.

Out goes the original's numbering (paper facts: checkpoints), whichever came in.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vitlab.errors import UserError
from vitlab.files import write_bytes
from vitlab.models.build import Model
from vitlab.recipes.configs import ViTConfig
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.weights import layouts
from vitlab.weights.architecture import MOST_LAYERS, Known, grid_of, resnet_config, shapes_after, vit_config
from vitlab.weights.exporting import Holds, check_holds, state_of
from vitlab.weights.plan import Part, Plan, Settings
from vitlab.weights.tensors import Shape, shown

PREFIXES = ("params/", "opt/target/", "optimizer/target/")
TENSORFLOW = "resnet/"
BLOCK = re.compile(r"Transformer/encoderblock(?:_(?P<layer>\d+))?/(?P<inner>.+)")
ATTENTION = r"MultiHeadDotProductAttention_[01]"
...
