"""The normal distribution cut to [0, 1] in every dimension: samples and log densities."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

Vector = NDArray[np.float64]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def sample(mean: Vector, sigma: float, rng: Generator) -> Vector:
    """One draw by inverse CDF; it takes one uniform number a dimension from `rng`.

    Args:
        mean: of the normal before it is cut, each in [0, 1]; shape (n,).
        sigma: its standard deviation in every dimension, above 0.

    Returns:
        Shape (n,), each in [0, 1].
    """
    low, high = ndtr((0.0 - mean) / sigma), ndtr((1.0 - mean) / sigma)
    quantile = low + rng.random(len(mean)) * (high - low)
    return np.clip(mean + sigma * ndtri(quantile), 0.0, 1.0)


def log_density(x: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """Log density of each dimension, differentiable in `mean`; float64.

    Where `mean` is in [0, 1], as here, the mass that the cut leaves is never small beside the
    rounding, so it is taken as a plain difference of two CDFs.

    Args:
        x: in [0, 1]; shape (..., n).
        mean: shape (n,).
        sigma: above 0.

    Returns:
        Shape (..., n).
    """
    mass = torch.special.ndtr((1.0 - mean) / sigma) - torch.special.ndtr((0.0 - mean) / sigma)
    return -0.5 * ((x - mean) / sigma) ** 2 - _HALF_LOG_2PI - math.log(sigma) - mass.log()
