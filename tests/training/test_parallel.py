"""What is applied to a model from outside; what needs two processes is in tests/faults/test_ranks.py."""

import dataclasses

import pytest
import torch

from vitlab import create_model
from vitlab.errors import UserError
from vitlab.models.layers import Block
from vitlab.models.resnet import Unit
from vitlab.recipes.schema import ScaleConfig
from vitlab.runtime import choose
from vitlab.training import parallel
from vitlab.training.parallel import Replica

CPU = choose("cpu")
TWO = dataclasses.replace(CPU, ranks=2, rank=1)


def _model():
    return create_model("ViT-Ti/7", num_classes=10, image_size=28)


def test_blocks_are_encoder_layers_or_residual_units():
    assert [type(block) for block in parallel.blocks_of(_model())] == [Block] * 12
    units = parallel.blocks_of(create_model("R50x1", num_classes=10, image_size=32))
    assert [type(unit) for unit in units] == [Unit] * 16


@pytest.mark.parametrize("change", [{}, {"recompute": True}, {"parallel": "fsdp"}])
def test_one_process_has_the_whole_model_under_its_own_names(change):
    model = _model()
    names = list(model.state_dict())
    replica = parallel.parallelize(model, ScaleConfig(**change), CPU)
    assert not replica.is_sharded
    assert replica.full is model
    assert list(replica.weights) == names == list(model.state_dict())


def test_several_processes_need_a_way():
    with pytest.raises(UserError, match="there are 2; set ddp or fsdp"):
        parallel.chosen_way(_model(), ScaleConfig(parallel="none"), TWO)
    assert parallel.chosen_way(_model(), ScaleConfig(), TWO) == "ddp"
    assert parallel.chosen_way(_model(), ScaleConfig(parallel="fsdp"), TWO) == "fsdp"


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_pieces_are_those_of_torch(rows, ranks):
    """FSDP cuts by `torch.chunk`; what it leaves to the last processes may be nothing."""
    chunks = list(torch.arange(rows).chunk(ranks))
    for rank in range(ranks):
        shard = parallel._rows_of(rows, dataclasses.replace(CPU, rank=rank, ranks=ranks))
        assert shard.rows_of_full == rows
        assert shard.first == (int(chunks[rank][0]) if rank < len(chunks) else rows)


def test_fp8_needs_its_library_or_a_gpu():
    with pytest.raises(UserError, match=r"vitlab\[lowbit\]|needs a GPU with fp8"):
        parallel.parallelize(_model(), ScaleConfig(precision="fp8"), CPU)


def test_a_lent_models_own_weights_come_back_bit_for_bit():
    model = _model()
    replica = Replica(model, dict(model.named_parameters()), {}, model)
    own = {name: value.detach().clone() for name, value in replica.weights.items()}
    others = {name: value + 1 for name, value in own.items()}
    with pytest.raises(RuntimeError, match="in between"), parallel.full_model(replica, others, CPU) as lent:
        assert torch.equal(lent.head.weight, others["head.weight"])
        raise RuntimeError("in between")
    assert all(torch.equal(value, own[name]) for name, value in replica.weights.items())


def test_given_weights_stay():
    model = _model()
    replica = Replica(model, dict(model.named_parameters()), {}, model)
    others = {name: value.detach() + 1 for name, value in replica.weights.items()}
    assert parallel.gather_into_model(replica, others, CPU) is model
    assert torch.equal(model.head.weight, others["head.weight"])
