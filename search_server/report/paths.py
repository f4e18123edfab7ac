"""The paths that losses are measured along, and what is measured."""

from dataclasses import dataclass

import numpy as np

#: The path of the classification losses.
LOGITS = np.linspace(-6.0, 6.0, 121)
#: The path of the ranking losses: logit of an object minus that of a background.
GAPS = np.linspace(-2.0, 2.0, 161)
#: The path of the box losses, displacement in widths of the box; 0 is a kink of most of them.
SHIFTS = np.linspace(0.005, 1.5, 150)
BOX_SIDE = 32.0


@dataclass(frozen=True)
class Curve:
    """A loss along a path.

    Attributes:
        x: (n,) the path: a logit, a difference of two, or a displacement in box widths.
        value: (n,) the loss of one sample, its weight included.
        gradient: (n,) d value / d x.
    """

    x: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
