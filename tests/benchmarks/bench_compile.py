"""What torch.compile is worth for a loss: CSE-AutoLoss-B's, forward and backward.

Run: `python tests/benchmarks/bench_compile.py [--rows 20000] [--classes 80] [--repeats 15]`
One thread; times are medians of CPU seconds, so that other processes on the machine count less.
The seconds of compiling are wall-clock: the C++ compiler is a process of its own.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import statistics
import tempfile
import time

import torch

from losses import CATALOG, ExpressionBranch, SigmoidExpressionLoss
from losses.compiled import cpp_compiler_problem


def timed_step(loss: SigmoidExpressionLoss, rows: int, classes: int) -> tuple[float, torch.Tensor]:
    """CPU seconds of value and gradient on scores as at the start of a training; the gradient."""
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randn(rows, classes, generator=generator) - 4.6).requires_grad_()
    labels = torch.full((rows,), classes)
    labels[: rows // 50] = torch.randint(0, classes, (rows // 50,), generator=generator)
    ious = torch.rand(rows // 50, generator=generator)
    began = time.process_time()
    loss(scores, labels, avg_factor=float(rows // 50), pos_ious=ious).backward()
    spent = time.process_time() - began
    assert scores.grad is not None
    return spent, scores.grad


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if problem := cpp_compiler_problem():
        raise SystemExit(problem)
    torch.set_num_threads(1)
    branch = CATALOG["cse-autoloss-b"].cls
    assert isinstance(branch, ExpressionBranch)
    plain = SigmoidExpressionLoss(branch.expression)
    compiled = SigmoidExpressionLoss(branch.expression, compile=True)
    with tempfile.TemporaryDirectory(prefix="lossforge-compile-") as fresh:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = fresh
        began = time.perf_counter()
        _, found = timed_step(compiled, given.rows, given.classes)
        compiling = time.perf_counter() - began
        _, expected = timed_step(plain, given.rows, given.classes)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)
        times: dict[str, list[float]] = {"plain": [], "compiled": []}
        for _ in range(given.repeats):
            for name, loss in (("plain", plain), ("compiled", compiled)):
                times[name].append(timed_step(loss, given.rows, given.classes)[0])
    medians = {name: statistics.median(each) for name, each in times.items()}
    ratio = medians["plain"] / medians["compiled"]
    if given.json:
        print(json.dumps({**medians, "ratio": ratio, "compiling": compiling}))
        return
    print(f"CSE-AutoLoss-B's classification loss, {given.rows:,} x {given.classes}, one thread")
    for name, seconds in medians.items():
        print(f"  {name:10s}{1e3 * seconds:8.1f} ms")
    print(f"  {ratio:.2f} times as fast; {compiling:.0f} s to compile at the first step")


if __name__ == "__main__":
    main()
