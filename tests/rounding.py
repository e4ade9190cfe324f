"""How far two runs may end apart when nothing but the order of their sums differs: one law for every such test."""

import math
from collections.abc import Mapping

import torch

UNIT_ROUNDOFF = 2.0**-24  # of float32: a rounded result is off by at most this share of itself


def rounding_bound(size: float, *, steps: int, terms: int) -> float:
    """The largest distance, in the Euclidean norm over all weights, that rounding alone may put between two runs.

    `size` is the norm of the weights, `steps` the number of updates, `terms` the length of the longest sum in a
    step, which is the sum of a kernel's gradient over every token of every image of the batch.

    1. A float32 sum of n terms, taken in another order (by another instruction set, thread, process, microbatch or
       replica), changes by about sqrt(n) u of its terms' size, where u = 2^-24: roundings are as often up as down
       (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019, Theorem 2.4; the certain
       bound n u is never met). The shorter sums on the way to it, over widths and heads, add less than that.
    2. SGD moves the weights by learning rate x velocity, so that an update's rounding error is sqrt(n) u of the update
       before cancellation. An update is smaller than the weights, which also are rounded to u of their own size when
       they are stored. So one step puts at most sqrt(n) u x size between the runs.
    3. Adam moves each weight by at most about the learning rate, whatever the size of its gradient, and divides the
       gradient by its own size: relative errors stay what they are. The exception is a gradient that is all rounding
       error, because it would be zero in exact arithmetic: its sign is drawn by lot and its weight moves a full
       learning rate either way. Those weights have to be known and left out; see `without_key_biases`.
    4. The errors of all steps add up, and each is carried on by the steps after it. While training is stable they
       hardly grow by themselves, and an update is some 30 times smaller than the weights, which leaves room for the
       growth that there is: over 50 steps of SGD with a learning rate of 0.05 and momentum 0.9, the hardest case here,
       starting weights that are off by one rounding (2^-23 of each) end 60 times as far apart.

    Hence steps x sqrt(terms) x u x size.
    """
    return steps * math.sqrt(terms) * UNIT_ROUNDOFF * size


def without_key_biases(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All weights but the biases of the keys, of which a third of each `qkv.bias` consists.

    The same number added to every key changes no softmax, so the gradient of such a bias is zero but for rounding.
    """
    kept = {}
    for name, weight in weights.items():
        if name.endswith("attn.qkv.bias"):
            queries, _, values = weight.chunk(3)
            weight = torch.cat([queries, values])
        kept[name] = weight.detach().cpu()
    return kept


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """Euclidean distance over all weights, computed in float64."""
    assert one.keys() == other.keys()
    return math.sqrt(sum(float((one[name].double() - other[name].double()).square().sum()) for name in one))


def norm(weights: Mapping[str, torch.Tensor]) -> float:
    """Euclidean norm over all weights, computed in float64."""
    return math.sqrt(sum(float(weight.double().square().sum()) for weight in weights.values()))


def assert_same_but_for_rounding(
    found: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    start: Mapping[str, torch.Tensor],
    *,
    steps: int,
    terms: int,
) -> None:
    """Two runs that do the same sums in another order end within `rounding_bound` of each other.

    The law has to be able to fail: training must have moved the weights from `start` by 100 times the bound.
    """
    found, expected, start = (without_key_biases(weights) for weights in (found, expected, start))
    apart, bound = distance(found, expected), rounding_bound(norm(expected), steps=steps, terms=terms)
    moved = distance(expected, start)
    assert moved >= 100 * bound, f"training moved the weights by {moved:.2e} alone, where the bound is {bound:.2e}"
    furthest = max(expected, key=lambda name: distance({name: found[name]}, {name: expected[name]}))
    assert apart <= bound, f"{apart:.2e} apart, where rounding explains {bound:.2e}; the furthest: {furthest}"
