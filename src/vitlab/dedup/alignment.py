"""Whether two pictures show the same: align the second with the first, then measure the remaining difference.

Scale and shift along each axis are found by Gauss-Newton steps on the correlation coefficient, first on blurred
pictures and then on their detail (a difference of Gaussians). What remains is measured twice: by the correlation
rho of the detail, which separates pictures of little contrast, and by the largest blurred difference r in grey
levels after one gain for brightness, which separates things of the same outline. Damage by compression is fine
and everywhere; a different thing differs in whole areas. Legend: N = pairs, S = side.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitlab.dedup.perceptual import SIDE, Floats, Thumbnails, centres, resampling

BATCH = 256
FURTHEST = 0.12  # scales and shifts that are tried, as a share of the half side
COARSE_STEPS, FINE_STEPS = 2, 3  # the coarse ones have converged after two
EDGE = 3  # pixels of each border that are left out: blurring carries what lies outside into them
REFINED_BELOW = 5.0  # of the distance after coarse alignment; duplicates are below it, most other pairs above
GAIN = 1.15  # brightness may differ by so much
RESIDUAL_FLOOR, CORRELATION_FLOOR = 0.5, 1e-3  # rounding of the pictures: neither factor of the distance is zero


def distances(first_NSS: Thumbnails, second_NSS: Thumbnails) -> NDArray[np.float64]:
    """The distance of each pair of pictures (N, S, S): (r + 1/2) sqrt(1 - rho + 1/1000).

    0.016 for identical pictures; docs/dedup.md says what duplicates and other pairs reach, and how that was measured. A
    pair that is far apart after coarse alignment is not aligned further. Mirror one side beforehand to find mirrored
    duplicates.
    """
    found = [
        _distances(first_NSS[start : start + BATCH], second_NSS[start : start + BATCH])
        for start in range(0, len(first_NSS), BATCH)
    ]
    return np.concatenate(found) if found else np.zeros(0)


@dataclass(frozen=True, eq=False)
class _Overlap:
    """The second picture brought over the first: weights along rows and columns, and which pixels both show."""

    rows_NSS: Floats
    columns_NSS: Floats
    both_NSS: Floats

    def bring(self, pictures_NSS: Floats) -> Floats:
        brought: Floats = self.rows_NSS @ pictures_NSS @ self.columns_NSS.transpose(0, 2, 1)
        return brought

    def mean(self, pictures_NSS: Floats) -> Floats:
        """The mean (N, 1, 1) over the shared pixels."""
        shared: Floats = (pictures_NSS * self.both_NSS).sum((1, 2), keepdims=True)
        shared /= self.both_NSS.sum((1, 2), keepdims=True)
        return shared

    def unit(self, pictures_NSS: Floats) -> tuple[Floats, Floats]:
        """The shared pixels with mean 0 and norm 1, and the norms (N, 1, 1) they had."""
        centred = (pictures_NSS - self.mean(pictures_NSS)) * self.both_NSS
        norms = np.sqrt((centred * centred).sum((1, 2), keepdims=True)) + np.float32(1e-6)
        return centred / norms, norms


def _distances(first_NSS: Thumbnails, second_NSS: Thumbnails) -> NDArray[np.float64]:
    first, second = first_NSS.astype(np.float32), second_NSS.astype(np.float32)
    warps_N4 = np.zeros((len(first), 4), np.float32)
    _, warps_N4 = _align(_blur(first, 2.0), _blur(second, 2.0), warps_N4, COARSE_STEPS)
    rho_N, _ = _align(_detail(first), _detail(second), warps_N4, 0)
    result_N = _combined(rho_N, first, second, warps_N4)
    near = np.flatnonzero(result_N < REFINED_BELOW)
    first, second = first[near], second[near]
    rho_N, warps_N4 = _align(_detail(first), _detail(second), warps_N4[near], FINE_STEPS)
    result_N[near] = np.minimum(result_N[near], _combined(rho_N, first, second, warps_N4))
    return result_N


def _combined(rho_N: NDArray[np.float64], first: Floats, second: Floats, warps_N4: Floats) -> NDArray[np.float64]:
    residual_N = _largest_difference(_blur(first, 1.0), _blur(second, 1.0), _overlap(warps_N4))
    apart: NDArray[np.float64] = (residual_N + RESIDUAL_FLOOR) * np.sqrt(np.maximum(0, 1 - rho_N) + CORRELATION_FLOOR)
    return apart


def _align(first_NSS: Floats, second_NSS: Floats, warps_N4: Floats, steps: int) -> tuple[NDArray[np.float64], Floats]:
    """The best correlation (N,) met on the way, and its warps (N, 4): scale and shift across, scale and shift down."""
    across_NSS, down_NSS = second_NSS @ _SLOPE.T, _SLOPE @ second_NSS
    best_N, best_warps_N4 = np.full(len(first_NSS), -2.0), warps_N4.copy()
    for step in range(steps + 1):
        overlap = _overlap(warps_N4)
        first_unit, _ = overlap.unit(first_NSS)
        second_unit, norms = overlap.unit(overlap.bring(second_NSS))
        rho_N = (first_unit * second_unit).sum((1, 2), dtype=np.float64)
        better = rho_N > best_N
        best_N[better], best_warps_N4[better] = rho_N[better], warps_N4[better]
        if step < steps:
            slopes = [overlap.bring(across_NSS), overlap.bring(down_NSS)]
            move_N4 = _gauss_newton(first_unit, second_unit, slopes, norms, overlap, rho_N)
            warps_N4 = np.clip(warps_N4 + move_N4, -FURTHEST, FURTHEST)
    return best_N, best_warps_N4


def _gauss_newton(
    first_unit: Floats, second_unit: Floats, slopes: list[Floats], norms: Floats, overlap: _Overlap,
    rho_N: NDArray[np.float64],
) -> Floats:  # fmt: skip
    """The change of the warps (N, 4) that a linear model of the second picture asks for.

    Brightness and contrast are projected out of the model, so that they need no parameters (Evangelidis and
    Psarakis, PAMI 30(10), 2008).
    """
    across, down = slopes
    x = centres()
    moves = [across * x[None, None, :], across, down * x[None, :, None], down]
    centred = [(move - overlap.mean(move)) * overlap.both_NSS / norms for move in moves]
    jacobian_N4P = np.stack(centred, axis=1).reshape(len(first_unit), 4, SIDE * SIDE)
    second_NP, first_NP = second_unit.reshape(-1, SIDE * SIDE, 1), first_unit.reshape(-1, SIDE * SIDE, 1)
    jacobian_N4P = jacobian_N4P - (jacobian_N4P @ second_NP) * second_NP.transpose(0, 2, 1)
    normal_N44 = jacobian_N4P @ jacobian_N4P.transpose(0, 2, 1)
    damping_N = 1e-3 * np.trace(normal_N44, axis1=1, axis2=2) / 4 + 1e-4
    normal_N44 = normal_N44 + damping_N[:, None, None] * np.eye(4, dtype=np.float32)
    wanted_N4 = (jacobian_N4P @ first_NP) / np.maximum(rho_N, 0.3)[:, None, None]
    solved: Floats = np.linalg.solve(normal_N44, wanted_N4)[:, :, 0].astype(np.float32)
    return solved


def _overlap(warps_N4: Floats) -> _Overlap:
    columns_NSS, across_NS = resampling(warps_N4[:, 0], warps_N4[:, 1])
    rows_NSS, down_NS = resampling(warps_N4[:, 2], warps_N4[:, 3])
    both_NSS = _inside(down_NS)[:, :, None] & _inside(across_NS)[:, None, :]
    return _Overlap(rows_NSS, columns_NSS, both_NSS.astype(np.float32))


def _inside(places_NS: Floats) -> NDArray[np.bool_]:
    """Whether a place lies well inside both pictures along one axis."""
    pixels = np.arange(SIDE)
    own = (pixels >= EDGE) & (pixels < SIDE - EDGE)
    return own & (places_NS >= EDGE - 0.5) & (places_NS <= SIDE - 0.5 - EDGE)


def _largest_difference(first_NSS: Floats, second_NSS: Floats, overlap: _Overlap) -> NDArray[np.float64]:
    """The largest blurred difference (N,) in grey levels of the brighter picture, after a gain with clipping at white.

    The darker picture gets the gain, so that what a brighter duplicate lost at white is lost on both sides.
    """
    both = overlap.both_NSS
    first, second = first_NSS * both, overlap.bring(second_NSS) * both
    product = (first * second).sum((1, 2))
    own_first, own_second = (first * first).sum((1, 2)), (second * second).sum((1, 2))
    second_darker_N = own_second <= own_first
    own_N = np.where(second_darker_N, own_second, own_first) + np.float32(1e-6)
    gain_N = np.clip(product / own_N, 1 / GAIN, GAIN)[:, None, None]
    darker = np.where(second_darker_N[:, None, None], second, first)
    brighter = np.where(second_darker_N[:, None, None], first, second)
    differences = np.abs(_blur(brighter - np.minimum(gain_N * darker, 255), 1.5)) * both
    largest_N: NDArray[np.float64] = differences.max((1, 2)).astype(np.float64)
    return largest_N


def _detail(pictures_NSS: Floats) -> Floats:
    return _blur(pictures_NSS, 1.0) - _blur(pictures_NSS, 2.5)


def _blur(pictures_NSS: Floats, sigma: float) -> Floats:
    blurred: Floats = _GAUSSIANS[sigma] @ pictures_NSS @ _GAUSSIANS[sigma].T
    return blurred


def _gaussian(sigma: float) -> Floats:
    """A matrix that blurs along one axis; edge pixels are repeated outside."""
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((SIDE, SIDE))
    for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
        matrix[np.arange(SIDE), np.clip(np.arange(SIDE) + offset, 0, SIDE - 1)] += weight
    return matrix.astype(np.float32)


def _slope() -> Floats:
    """A matrix of central differences along one axis, per half side; one-sided at the ends."""
    slope: Floats = np.asarray(np.gradient(np.eye(SIDE), 2 / SIDE, axis=0)).astype(np.float32)
    return slope


_GAUSSIANS = {sigma: _gaussian(sigma) for sigma in (1.0, 1.5, 2.0, 2.5)}
_SLOPE = _slope()
