"""Filters and position similarity against NumPy in float64."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from vitlab.errors import UserError
from vitlab.inspection import embedding_filters, position_similarity
from vitlab.models.build import build
from vitlab.models.positions import sincos_2d
from vitlab.recipes.zoo import ResNetConfig, ResNetStem, ViTConfig

SQUARE = ViTConfig(4, 32, 2, 32, 2, image_size=12, num_classes=5)
WIDE = ViTConfig((3, 5), 24, 2, 32, 2, image_size=(9, 20), num_classes=5)


def made(config, seed=0):
    torch.manual_seed(seed)
    return build(config)


def principal_components(kernel_DCHW, components):
    """By the eigenvectors of the covariance, with the sign that makes the largest entry positive."""
    filters_DX = kernel_DCHW.transpose(0, 2, 3, 1).reshape(len(kernel_DCHW), -1).astype(np.float64)
    covariance_XX = np.cov(filters_DX, rowvar=False)
    values_X, vectors_XX = np.linalg.eigh(covariance_XX)
    answers = []
    for index in np.argsort(values_X)[::-1][:components]:
        vector_X = vectors_XX[:, index]
        if vector_X[np.abs(vector_X).argmax()] < 0:
            vector_X = -vector_X
        answers.append((vector_X - vector_X.min()) / (vector_X.max() - vector_X.min()))
    return np.stack(answers)


@pytest.mark.parametrize("config", [SQUARE, WIDE])
def test_filters_are_the_principal_components(config):
    model = made(config)
    with torch.no_grad():
        model.patch_embed.proj.weight.add_(0.3)  # a mean that only centring removes
    filters = embedding_filters(model, components=20)
    expected = principal_components(model.patch_embed.proj.weight.detach().numpy(), 20)
    assert filters.shape == (20, *config.patch_hw, 3)
    np.testing.assert_allclose(filters.numpy().reshape(20, -1), expected, atol=1e-5)


def test_every_filter_reaches_from_zero_to_one():
    filters = embedding_filters(made(SQUARE), components=28).flatten(1)
    assert torch.equal(filters.min(1).values, torch.zeros(28))
    assert torch.equal(filters.max(1).values, torch.ones(28))


def test_a_planted_filter_is_found():
    """Kernels that are all multiples of one colour picture have that picture as their first component."""
    picture_CHW = np.random.default_rng(0).normal(size=(3, 4, 4))
    model = made(SQUARE)
    scales_D = torch.linspace(-1, 1, SQUARE.hidden)
    with torch.no_grad():
        model.patch_embed.proj.weight.copy_(scales_D[:, None, None, None] * torch.from_numpy(picture_CHW))
    found_HWC = embedding_filters(model, components=1)[0].numpy()
    planted_HWC = picture_CHW.transpose(1, 2, 0)
    assert abs(np.corrcoef(found_HWC.ravel(), planted_HWC.ravel())[0, 1]) > 0.9999


def test_negated_kernels_give_the_same_filters():
    model = made(SQUARE)
    before = embedding_filters(model)
    with torch.no_grad():
        model.patch_embed.proj.weight.neg_()
    torch.testing.assert_close(embedding_filters(model), before)


def test_filters_that_are_not_there_are_refused():
    with pytest.raises(UserError, match="1 to 31"):
        embedding_filters(made(SQUARE), components=32)
    with pytest.raises(UserError, match="1 to 31"):
        embedding_filters(made(SQUARE), components=0)
    hybrid = ViTConfig(1, 16, 1, 16, 2, image_size=32, num_classes=2, resnet=ResNetStem((1,), 0.5))
    with pytest.raises(UserError, match="feature maps of 128 channels"):
        embedding_filters(made(hybrid))
    with pytest.raises(UserError, match="ResNet"):
        embedding_filters(made(ResNetConfig((1,), 0.5, image_size=32, num_classes=2)))


def looped_similarity(positions_RCD):
    rows, columns, _ = positions_RCD.shape
    answer = np.zeros((rows, columns, rows, columns))
    for r, c, s, d in itertools.product(range(rows), range(columns), range(rows), range(columns)):
        one, two = positions_RCD[r, c], positions_RCD[s, d]
        answer[r, c, s, d] = (one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum())
    return answer


def learned(model):
    return model.pos_embed[0, model.prefix_tokens :]


def learned_2d(model):
    rows, columns = model.grid
    lines = [
        torch.cat((model.pos_embed_row[0, row], model.pos_embed_column[0, column]))
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.stack(lines)


def fixed(model):
    return sincos_2d(model.grid, model.config.hidden)


@pytest.mark.parametrize("head", ["token", "gap"])
@pytest.mark.parametrize("at", ["input", "every_layer", "every_layer_shared"])
@pytest.mark.parametrize(("position", "table"), [("learned", learned), ("learned2d", learned_2d), ("sincos2d", fixed)])
def test_similarity_is_the_cosine(position, table, at, head):
    model = made(dataclasses.replace(WIDE, position=position, position_at=at, head=head))
    similarity = position_similarity(model)
    positions_RCD = table(model).detach().double().numpy().reshape(*model.grid, -1)
    assert similarity.shape == (3, 4, 3, 4)
    np.testing.assert_allclose(similarity.numpy(), looped_similarity(positions_RCD), atol=1e-6)


@pytest.mark.parametrize("position", ["learned", "learned2d", "sincos2d"])
def test_similarity_is_of_what_the_model_adds(position):
    """The tokens of an image without any content are the positions, whatever tables they are made of."""
    model = made(dataclasses.replace(WIDE, position=position)).eval()
    with torch.no_grad():
        model.patch_embed.proj.weight.zero_()
        tokens = model.embed(torch.zeros(1, 3, *WIDE.image_hw))[0, model.prefix_tokens :]
    expected = looped_similarity(tokens.double().numpy().reshape(*model.grid, -1))
    np.testing.assert_allclose(position_similarity(model).numpy(), expected, atol=1e-6)


def test_a_position_is_most_like_itself():
    similarity = position_similarity(made(SQUARE))
    for row, column in itertools.product(range(3), range(3)):
        assert similarity[row, column].argmax() == 3 * row + column
        assert similarity[row, column, row, column] == pytest.approx(1)


@pytest.mark.parametrize("position", ["none", "relative"])
def test_models_without_positions_are_refused(position):
    with pytest.raises(UserError, match=f"position='{position}'"):
        position_similarity(made(dataclasses.replace(SQUARE, position=position)))


def test_resnets_are_refused():
    with pytest.raises(UserError, match="ResNet"):
        position_similarity(made(ResNetConfig((1,), 0.5, image_size=32, num_classes=2)))
