"""How many expressions a second are checked: our NumPy evaluation, and DEAP with torch beside it.

Run: `python tests/benchmarks/bench_primitives.py [--count 2000] [--repeats 7] [--json]`
Each expression is a fresh `binary_cls` tree of 15 nodes; value and derivative along the logits
are computed on 64 points. One thread; seconds are of its CPU time, so that other processes on the
machine count less. Medians over the repeats, which alternate between the two.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from primitives import SPACES, Evaluator, Expression, grow, parse

POINTS = 64
SIZE = 15


def draw_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of `count` random expressions of 15 nodes that read the logits."""
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    while len(texts) < count:
        expression = grow(SPACES["binary_cls"], rng, max_depth=8)
        if expression.size == SIZE and "X" in expression.inputs:
            texts.append(str(expression))
    return texts


def draw_values(seed: int = 1) -> dict[str, np.ndarray]:
    """Logits in [-6, 6] with labels and IoU, each `(64, 1)`."""
    rng = np.random.default_rng(seed)
    label = (rng.random((POINTS, 1)) < 0.5).astype(np.float64)
    logits = np.linspace(-6.0, 6.0, POINTS)[:, None]
    return {"X": logits, "Q": label * rng.random((POINTS, 1)), "PY": label, "NY": 1.0 - label}


def fresh(texts: list[str]) -> list[Expression]:
    """New expressions, with nothing cached on them."""
    return [parse(text, "binary_cls") for text in texts]


def numpy_rate(texts: list[str]) -> float:
    """Expressions a second through `Evaluator`."""
    values = draw_values()
    expressions = fresh(texts)
    start = time.process_time()
    evaluator = Evaluator("binary_cls", values, {"X": np.ones((POINTS, 1))})
    for expression in expressions:
        evaluator(expression)
    return len(texts) / (time.process_time() - start)


def deap_peer(texts: list[str]) -> Callable[[], float]:
    """The same expressions through DEAP's `gp.compile` and torch autograd."""
    import torch
    from deap import gp

    torch.set_num_threads(1)
    space = SPACES["binary_cls"]
    pset = gp.PrimitiveSet("binary_cls", len(space.inputs))
    pset.renameArguments(**{f"ARG{i}": item.name for i, item in enumerate(space.inputs)})
    for name, operator in space.table.items():
        pset.addPrimitive(_tensor_function(torch, operator), operator.arity, name=name)
    for constant in space.constants:
        pset.addTerminal(int(constant), name=f"{constant:g}")
    trees = [gp.PrimitiveTree.from_string(text, pset) for text in texts]
    values = {k: torch.tensor(v, dtype=torch.float32) for k, v in draw_values().items()}
    values["X"].requires_grad_()
    inputs = [values[item.name] for item in space.inputs]

    def run() -> float:
        start = time.process_time()
        for tree in trees:
            result = gp.compile(tree, pset)(*inputs)
            if result.requires_grad:
                torch.autograd.grad(result.sum(), inputs[0])
        return len(trees) / (time.process_time() - start)

    return run


def _tensor_function(torch: Any, operator: Any) -> Callable[..., Any]:
    # a constant under a unary operator becomes a tensor, as the reference's `toCuda` does
    if operator.arity == 2:
        return lambda a, b: operator.torch(torch, a, b)
    return lambda x: operator.torch(
        torch, x if isinstance(x, torch.Tensor) else torch.tensor(float(x))
    )


def measure(count: int, repeats: int) -> dict[str, float]:
    """Median rates of both, measured in turns, and the median of their ratios."""
    texts = draw_texts(count)
    peer = deap_peer(texts[: max(100, count // 4)])
    ours, theirs = [], []
    numpy_rate(texts[:200])
    for _ in range(repeats):
        ours.append(numpy_rate(texts))
        theirs.append(peer())
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "numpy_per_second": statistics.median(ours),
        "deap_torch_per_second": statistics.median(theirs),
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=2000, help="expressions per repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.count, arguments.repeats)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{SIZE} nodes, {POINTS} points, value and derivative, one thread, CPU time, medians")
    print(f"  primitives (NumPy)        {result['numpy_per_second']:10,.0f} expressions/s")
    print(f"  DEAP compile + autograd   {result['deap_torch_per_second']:10,.0f} expressions/s")
    print(f"  ratio                     {result['ratio']:10.2f}")


if __name__ == "__main__":
    main()
