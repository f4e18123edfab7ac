"""The global random generators: read, set and kept."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def generator_states() -> dict[str, Any]:
    """The states of the generators of Python, NumPy and torch (and of CUDA, where it is in use).

    Plain data and CPU tensors: `torch.load` reads them back with ``weights_only=True``.
    """
    kind, words, *rest = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(words).tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_generator_states(states: Mapping[str, Any]) -> None:
    """Brings every generator into the state that `generator_states` found it in.

    Raises:
        RuntimeError: the states are of a machine with more GPUs.
    """
    version, words, rest = states["python"]
    random.setstate((version, tuple(words), rest))
    kind, words, *others = states["numpy"]
    np.random.set_state((kind, np.array(words, dtype=np.uint32), *others))
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Whatever its body draws, the generators are afterwards as before."""
    states = generator_states()
    try:
        yield
    finally:
        set_generator_states(states)
