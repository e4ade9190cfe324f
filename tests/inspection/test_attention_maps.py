"""Attention maps, distance and rollout against plain loops in float64 and against another library."""

import contextlib
import itertools
import math

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from vitlab.errors import UserError
from vitlab.inspection import attention, attention_distance, attention_maps, attention_rollout
from vitlab.models.build import build
from vitlab.models.layers import Block
from vitlab.recipes.zoo import ResNetStem, ViTConfig

SQUARE = ViTConfig(4, 16, 3, 32, 2, image_size=12, num_classes=5)
WIDE = ViTConfig((4, 6), 16, 3, 32, 2, image_size=(8, 18), num_classes=5)
VARIANTS = {
    "square": SQUARE,
    "wide": WIDE,
    "gap": ViTConfig(4, 16, 3, 32, 2, image_size=(8, 12), num_classes=5, head="gap"),
    "relative": ViTConfig(4, 16, 3, 32, 2, image_size=12, num_classes=5, position="relative"),
    "every layer": ViTConfig(4, 16, 3, 32, 2, image_size=12, num_classes=5, position_at="every_layer"),
    "hybrid": ViTConfig(1, 16, 2, 32, 2, image_size=(32, 64), num_classes=5, resnet=ResNetStem((1, 1), 0.5)),
}


def lively(config, seed=0):
    """A model in float64 whose attention is far from uniform and differs between layers and heads."""
    torch.manual_seed(seed)
    model = build(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model.eval()


def images_of(config, batch=2):
    return torch.randn(batch, 3, *config.image_hw, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(params=VARIANTS, scope="module")
def subject(request):
    config = VARIANTS[request.param]
    return lively(config), images_of(config)


def all_maps(model, images):
    """(layers, batch, heads, tokens, tokens) in numpy, for the plain loops below."""
    return np.stack([maps.numpy() for _, maps in attention_maps(model, images)])


def test_maps_are_distributions_over_tokens(subject):
    model, images = subject
    maps = all_maps(model, images)
    config = model.config
    assert maps.shape == (config.layers, len(images), config.heads, config.tokens, config.tokens)
    assert (maps >= 0).all()
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-12)
    assert np.abs(maps - 1 / config.tokens).max() > 0.1, "the test needs attention that is not uniform"


def test_maps_are_those_of_the_fused_forward_pass(subject):
    model, images = subject
    with torch.no_grad():
        tokens = model.embed(images)
        for layer, maps in attention_maps(model, images):
            tokens = model.layer_input(layer, tokens)
            block = model.blocks[layer]
            batch, count, width = tokens.shape
            values = block.attn.qkv(block.norm1(tokens))[..., 2 * width :]
            values = values.reshape(batch, count, model.config.heads, -1).transpose(1, 2)
            mixed = block.attn.proj((maps @ values).transpose(1, 2).reshape(batch, count, width))
            after = tokens + mixed
            expected = after + block.mlp(block.norm2(after))
            tokens = block(tokens)
            torch.testing.assert_close(tokens, expected, rtol=1e-9, atol=1e-9)


def numpy_maps(model, images):
    """softmax(q k^T / sqrt(D_h)) of Eq. 6, head by head in plain numpy, from the tokens of the fused forward pass."""
    config = model.config
    width = config.hidden // config.heads
    answers = []
    with torch.no_grad():
        tokens = model.embed(images)
        for layer, block in enumerate(model.blocks):
            tokens = model.layer_input(layer, tokens)
            mixed = (tokens.numpy() - tokens.mean(-1, keepdim=True).numpy()) / np.sqrt(
                tokens.var(-1, unbiased=False, keepdim=True).numpy() + config.norm_eps
            )
            normed = mixed * block.norm1.weight.numpy() + block.norm1.bias.numpy()
            qkv = normed @ block.attn.qkv.weight.numpy().T + block.attn.qkv.bias.numpy()
            maps = np.zeros((len(images), config.heads, config.tokens, config.tokens))
            for head in range(config.heads):
                part = slice(head * width, (head + 1) * width)
                query, key = qkv[..., part], qkv[..., config.hidden :][..., part]
                logits = query @ key.transpose(0, 2, 1) / math.sqrt(width)
                powers = np.exp(logits - logits.max(-1, keepdims=True))
                maps[:, head] = powers / powers.sum(-1, keepdims=True)
            answers.append(maps)
            tokens = block(tokens)
    return np.stack(answers)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "relative"])
def test_maps_in_float32_are_those_of_a_float64_reference(name):
    config = VARIANTS[name]
    reference = numpy_maps(lively(config), images_of(config))
    model, images = lively(config).float(), images_of(config).float()
    np.testing.assert_allclose(all_maps(model, images), reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("class_token", ["drop", "renormalise"])
def test_distance_and_rollout_in_float32_are_those_of_float64(subject, class_token):
    model, images = subject
    config = model.config
    single = lively(config).float()
    reach = 1e-6 * max(config.image_hw)
    np.testing.assert_allclose(
        attention_distance(single, images.float(), class_token),
        looped_distance(model, all_maps(model, images), class_token),
        rtol=1e-5,
        atol=reach,
    )
    for residual in (True, False):
        expected = looped_rollout(model, all_maps(model, images), residual)
        found = attention_rollout(single, images.float(), residual=residual)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("image_size", [(8, 12), 12])
def test_maps_agree_with_transformers(image_size):
    config = ViTConfig(4, 16, 3, 32, 2, image_size=image_size, num_classes=0, gelu="erf", norm_eps=1e-5)
    torch.manual_seed(3)
    model = build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    other = transformers_twin(model)
    images = torch.randn(2, 3, *config.image_hw)
    with torch.no_grad():
        expected = other(images, output_attentions=True).attentions
    for layer, maps in attention_maps(model, images):
        torch.testing.assert_close(maps, expected[layer], rtol=0, atol=1e-5)


def transformers_twin(model):
    # torchvision's wheel, which transformers imports where it is found, needs operators a CPU torch lacks.
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # another test has declared it
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import transformers

    config = model.config
    twin = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=config.hidden, num_hidden_layers=config.layers, num_attention_heads=config.heads,
            intermediate_size=config.mlp, image_size=list(config.image_hw), patch_size=config.patch,
            hidden_act="gelu", layer_norm_eps=config.norm_eps, attn_implementation="eager",
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    ours = model.state_dict()
    theirs = {
        "embeddings.cls_token": ours["cls_token"],
        "embeddings.position_embeddings": ours["pos_embed"],
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layernorm": "norm",
    }
    for layer in range(config.layers):
        to, of = f"layers.{layer}", f"blocks.{layer}"
        theirs |= {f"{to}.layernorm_before": f"{of}.norm1", f"{to}.layernorm_after": f"{of}.norm2"}
        theirs |= {f"{to}.attention.o_proj": f"{of}.attn.proj"}
        theirs |= {f"{to}.mlp.fc1": f"{of}.mlp.fc1", f"{to}.mlp.fc2": f"{of}.mlp.fc2"}
        for kind in ("weight", "bias"):
            parts = ours[f"{of}.attn.qkv.{kind}"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                theirs[f"{to}.attention.{name}.{kind}"] = part
    state = {}
    for to, of in theirs.items():
        if isinstance(of, str):
            state |= {f"{to}.{kind}": ours[f"{of}.{kind}"] for kind in ("weight", "bias")}
        else:
            state[to] = of
    twin.load_state_dict(state)
    return twin


def looped_distance(model, maps, class_token):
    config, first = model.config, model.prefix_tokens
    rows, columns = config.grid
    pitch_h, pitch_w = config.token_hw
    places = [(row * pitch_h, column * pitch_w) for row in range(rows) for column in range(columns)]
    layers, batch, heads = maps.shape[:3]
    expected = np.zeros((layers, heads))
    for layer, head in itertools.product(range(layers), range(heads)):
        total = 0.0
        for image, query in itertools.product(range(batch), range(len(places))):
            weights = [maps[layer, image, head, first + query, first + key] for key in range(len(places))]
            scale = 1 if class_token == "drop" else 1 / sum(weights)
            for key, weight in enumerate(weights):
                total += scale * weight * math.dist(places[query], places[key])
        expected[layer, head] = total / (batch * len(places))
    return expected


@pytest.mark.parametrize("class_token", ["drop", "renormalise"])
def test_distance_is_what_plain_loops_give(subject, class_token):
    model, images = subject
    distances = attention_distance(model, images, class_token)
    expected = looped_distance(model, all_maps(model, images), class_token)
    assert distances.dtype == torch.float64
    np.testing.assert_allclose(distances.numpy(), expected, rtol=1e-6)


def test_the_two_distances_differ_only_where_there_is_a_class_token():
    for name in ("square", "gap"):
        model, images = lively(VARIANTS[name]), images_of(VARIANTS[name])
        dropped = attention_distance(model, images, "drop")
        renormalised = attention_distance(model, images, "renormalise")
        if name == "gap":
            torch.testing.assert_close(dropped, renormalised)
        else:
            assert (renormalised > dropped).all()


def test_attention_that_is_uniform_or_local_has_the_known_distance():
    model, images = lively(VARIANTS["gap"]), images_of(VARIANTS["gap"])
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.zero_()  # every logit is the same
            block.attn.qkv.bias.zero_()
    # 2 x 3 patches of 4 pixels: the mean over all pairs, by hand.
    pairs = [0, 4, 8, 4, math.hypot(4, 4), math.hypot(8, 4)]  # from a corner, of which there are four
    middle = [4, 0, 4, math.hypot(4, 4), 4, math.hypot(4, 4)]  # from a middle patch, of which there are two
    expected = (4 * sum(pairs) / 6 + 2 * sum(middle) / 6) / 6
    np.testing.assert_allclose(attention_distance(model, images).numpy(), expected, rtol=1e-6)


def looped_rollout(model, maps, residual):
    layers, batch, heads, count = maps.shape[:4]
    first = model.prefix_tokens
    answers = []
    for image in range(batch):
        product = np.eye(count)
        for layer in range(layers):
            mixed = np.zeros((count, count))
            for head in range(heads):
                mixed += maps[layer, image, head] / heads
            if residual:
                mixed += np.eye(count)
                for row in range(count):
                    mixed[row] /= mixed[row].sum()
            product = mixed @ product
        row = product[0] if first else product.mean(0)
        answers.append(row[first:].reshape(model.grid))
    return np.stack(answers)


@pytest.mark.parametrize("residual", [True, False])
def test_rollout_is_what_plain_loops_give(subject, residual):
    model, images = subject
    rollout = attention_rollout(model, images, residual=residual)
    expected = looped_rollout(model, all_maps(model, images), residual)
    assert rollout.shape == (len(images), *model.grid)
    np.testing.assert_allclose(rollout.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_small_chunks_give_the_same(monkeypatch):
    model, images = lively(SQUARE), images_of(SQUARE, batch=5)
    distance, rollout = attention_distance(model, images), attention_rollout(model, images)
    monkeypatch.setattr(attention, "MAP_BYTES", 2 * 4 * SQUARE.heads * SQUARE.tokens**2)  # two images
    torch.testing.assert_close(attention_distance(model, images), distance)
    torch.testing.assert_close(attention_rollout(model, images), rollout)


def test_chosen_layers_only_and_no_work_beyond_the_last():
    model, images = lively(SQUARE), images_of(SQUARE)
    whole = dict(attention_maps(model, images))
    chosen = dict(attention_maps(model, images, layers=[-2, 0]))
    assert list(chosen) == [0, 1]
    for layer, maps in chosen.items():
        assert torch.equal(maps, whole[layer])
    model.blocks[2].register_forward_pre_hook(lambda *_: pytest.fail("layer 2 was not asked for"))
    dict(attention_maps(model, images, layers=[1]))
    assert dict(attention_maps(model, images, layers=[])) == {}


def test_one_layer_of_maps_is_alive_at_a_time(monkeypatch):
    made = []
    compute = Block.attention_probabilities

    def watched(block, tokens):
        assert all(storage.expired() for storage in made), "an earlier layer's maps are still in memory"
        maps = compute(block, tokens)
        made.append(StorageWeakRef(maps.untyped_storage()))
        return maps

    monkeypatch.setattr(Block, "attention_probabilities", watched)
    monkeypatch.setattr(attention, "MAP_BYTES", 1)  # an image at a time
    model, images = lively(SQUARE), images_of(SQUARE)
    attention_distance(model, images)
    attention_rollout(model, images)
    assert len(made) == 2 * len(images) * SQUARE.layers


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model, images = lively(VARIANTS["square"]).train(training), images_of(SQUARE)
    model.blocks[1].eval()
    before = [module.training for module in model.modules()]
    for _, maps in attention_maps(model, images):
        assert not maps.requires_grad
        assert torch.is_grad_enabled()
        assert [module.training for module in model.modules()] == before
    attention_distance(model, images)
    attention_rollout(model, images)
    with pytest.raises(UserError):
        attention_rollout(model, images[..., :-4])
    assert [module.training for module in model.modules()] == before


def test_dropout_does_not_disturb_what_is_seen():
    config = ViTConfig(4, 16, 2, 32, 2, image_size=12, num_classes=5, dropout=0.5)
    model, images = lively(config).train(), images_of(config)
    assert torch.equal(attention_rollout(model, images), attention_rollout(model, images))


def test_results_may_be_changed_in_place():
    model, images = lively(SQUARE), images_of(SQUARE)
    rollout = attention_rollout(model, images)
    rollout /= rollout.max()
    assert rollout.max() == 1


def test_wrong_questions_are_refused_in_a_line():
    model, images = lively(SQUARE), images_of(SQUARE)
    with pytest.raises(UserError, match="layer 3: the model has 3 layers, numbered 0 to 2"):
        attention_maps(model, images, layers=[0, 3])
    with pytest.raises(UserError, match=r"\(3, 12, 12\)"):
        attention_maps(model, images[0])
    with pytest.raises(UserError, match="uint8"):
        attention_rollout(model, images.to(torch.uint8))
    with pytest.raises(UserError, match="no images"):
        attention_distance(model, images[:0])
    with pytest.raises(UserError, match="'drop' or 'renormalise'"):
        attention_distance(model, images, "keep")
    with pytest.raises(UserError, match="not available for a Linear"):
        attention_maps(torch.nn.Linear(2, 2), images)
