"""How many random expressions a second are drawn and verified; torch and autograd beside it.

Run: `python tests/benchmarks/bench_verification.py [--count 5000] [--peer 300] [--json]`
One thread. The peer decides by the first condition alone, in the straightforward way: every
expression through `to_torch`, value and gradient at the same points by autograd. Shares of what is
rejected at which condition come with it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from collections import Counter

import numpy as np
import torch

from primitives import SPACES, Expression, grow, to_torch
from search_server.funnel.verification import box, sigmoid, softmax, verify

PROBES = {
    "multi_cls": softmax.core_probe(),
    "binary_cls": sigmoid.core_probe(3),
    "box": box.ways_probe(box.CORE_SIDES, box.CORE_WAYS)[0],
}


def peer_verify(expression: Expression, inputs: dict[str, torch.Tensor]) -> bool:
    """Whether value and gradient are finite and the gradient is not zero, by autograd."""
    moving = [name for name in ("X", "U", "I", "E") if name in inputs]
    tensors = {name: each.clone().requires_grad_(name in moving) for name, each in inputs.items()}
    value = to_torch(expression)(**tensors)
    if not value.requires_grad:
        return False
    wanted = [tensors[name] for name in moving]
    gradients = torch.autograd.grad(value.sum(), wanted, allow_unused=True)
    present = [gradient for gradient in gradients if gradient is not None]
    finite = bool(torch.isfinite(value).all()) and all(
        bool(torch.isfinite(gradient).all()) for gradient in present
    )
    return finite and any(bool((gradient != 0).any()) for gradient in present)


def measure(name: str, count: int, peer: int, seed: int = 0) -> dict[str, object]:
    """Speeds per second, the ratio of the two, and outcomes of `count` draws in one space."""
    space = SPACES[name]
    rng = np.random.default_rng(seed)
    for _ in range(50):
        verify(grow(space, rng))
    start = time.perf_counter()
    drawn = [grow(space, rng) for _ in range(count)]
    grown = time.perf_counter()
    outcomes = Counter(verify(expression).condition or "accepted" for expression in drawn)
    verified = time.perf_counter()
    inputs = {key: torch.from_numpy(np.array(each)) for key, each in PROBES[name].values.items()}
    start_peer = time.perf_counter()
    for expression in drawn[:peer]:
        peer_verify(expression, inputs)
    peer_rate = min(peer, count) / (time.perf_counter() - start_peer)
    rate = count / (verified - grown)
    return {
        "space": name,
        "draws": count,
        "grown_per_second": round(count / (grown - start)),
        "verified_per_second": round(rate),
        "both_per_second": round(count / (verified - start)),
        "peer_per_second": round(peer_rate),
        "times_peer": round(rate / peer_rate, 1),
        "outcomes": dict(outcomes.most_common()),
    }


def main() -> None:
    """Prints one block per space, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--peer", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = [measure(name, arguments.count, arguments.peer) for name in SPACES]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        print(
            "{space:10s} grow {grown_per_second}/s, verify {verified_per_second}/s, both "
            "{both_per_second}/s; torch autograd {peer_per_second}/s: {times_peer} times".format(
                **result
            )
        )
        print(f"           {result['outcomes']}")


if __name__ == "__main__":
    main()
