"""How fast the ranking losses are, forward and backward, beside the ways they were released.

Run: `python tests/benchmarks/bench_ranking.py [--repeats 15] [--peer-repeats 2] [--json]`
PAP is compared with all pairs at once, as released (every x compared with every control point), and
with the same mended by a binary search for the control points; AP, aLRP and RankSort with a loop
over the positives. The peers are written out here, in float32 as released. One thread; seconds are
of its CPU time, so that other processes on the machine count less. Ours are medians, a peer's is
its fastest run. Memory is the most that is allocated at once, as torch's profiler sees it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from losses import PapFunctions, alrp_loss, ap_loss, pap_loss, rank_sort_loss

POSITIVES = 1_000
# the released control points for RetinaNet
ROWS = PapFunctions.from_json(
    {
        "H2": [[0.4182, 0.0277], [0.4948, 0.2187], [0.6882, 0.2624], [0.802, 0.6688]],
        "I2": [[0.1279, 0.3696], [0.3056, 0.4708], [0.5198, 0.529], [0.6983, 0.6709]],
        "I3": [[0.0931, 0.0289], [0.3607, 0.5585], [0.4823, 0.7131], [0.6291, 0.8162]],
        "I1": [[0.4914, 0.1499], [0.5492, 0.1664], [0.6259, 0.3051], [0.7945, 0.6195]],
        "H1": [[0.413, 0.0798], [0.4356, 0.3571], [0.5361, 0.7063], [0.8097, 0.9083]],
    }
).rows()

Interpolate = Callable[[Tensor, Tensor], Tensor]


class Problem(NamedTuple):
    """Logits (N,) and IoUs (N,) that take gradients, targets (N,) and box losses (P,)."""

    logits: Tensor
    ious: Tensor
    targets: Tensor
    box_losses: Tensor


def draw(size: int) -> Problem:
    """A detector in training: positives higher than negatives by their spread."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(size, dtype=torch.long)
    targets[torch.randperm(size, generator=generator)[:POSITIVES]] = 1
    logits = 1.5 * torch.randn(size, generator=generator) - 4.0 + 1.5 * targets
    ious = torch.rand(size, generator=generator) * targets
    box_losses = 1.0 - ious[targets == 1]
    return Problem(logits.requires_grad_(), ious.requires_grad_(), targets, box_losses)


def by_comparison(x: Tensor, row: Tensor) -> Tensor:
    """The released interpolation."""
    xs, ys = row[0::2], row[1::2]
    index = (x[..., None] > xs).sum(-1) + (xs == 0).sum() * (x == 0) - 1
    left, right = xs[index], xs[index + 1]
    return ys[index] + (ys[index + 1] - ys[index]) / (right - left) * (x - left)


def by_search(x: Tensor, row: Tensor) -> Tensor:
    """The same by a binary search, with the slopes computed once."""
    xs, ys = row[0::2].contiguous(), row[1::2]
    slopes = ys.diff() / xs.diff()
    index = torch.searchsorted(xs[1:-1].contiguous(), x.detach())
    return ys[index] + slopes[index] * (x - xs[index])


def all_pairs_pap(problem: Problem, interpolate: Interpolate) -> Tensor:
    """Parameterized AP loss through the matrix of all differences."""
    h2, i2, i3, i1, h1 = torch.tensor(ROWS)
    logits, ious, targets, _ = problem
    positives = targets == 1
    x = torch.clamp((logits[:, None] - logits[positives]) / 2 + 0.5, 0.0, 1.0)
    among = interpolate(x, h1).detach().sum(0)
    before = (interpolate(x, h2) * (1 - interpolate(ious, i2))[:, None]).sum(0)
    own = ious[positives]
    errors = 1 - interpolate(own, i1) + interpolate(own, i3) * before / among
    return errors.sum() / (len(own) + 1e-8)


def looped_ap(problem: Problem) -> tuple[Tensor, Tensor]:
    """AP loss and its gradient, by a loop over the positives."""
    own, others, gradient, places = _relevant(problem, 1.0)
    to_own, to_others = torch.zeros_like(own), torch.zeros_like(others)
    precisions = torch.zeros_like(own)
    highest = torch.zeros(())
    for i in own.argsort():
        among = torch.clamp((own - own[i]) / 2 + 0.5, 0.0, 1.0)
        among[i] = 0
        before = torch.clamp((others - own[i]) / 2 + 0.5, 0.0, 1.0)
        position = 1 + among.sum()
        rank = position + before.sum()
        precision = position / rank
        if highest <= precision:
            highest = precision
            to_others += before / rank
        else:
            to_others += before / rank * ((1 - highest) / (1 - precision))
        to_own[i] = highest - 1
        precisions[i] = highest
    gradient[places[0]], gradient[places[1]] = to_own, to_others
    return 1 - precisions.mean(), gradient / len(own)


def looped_alrp(problem: Problem) -> tuple[Tensor, Tensor]:
    """aLRP loss and its gradient, by a loop over the positives."""
    own, others, gradient, places = _relevant(problem, 1.0)
    to_own, to_others = torch.zeros_like(own), torch.zeros_like(others)
    precisions = torch.zeros_like(own)
    for i in own.argsort():
        among = torch.clamp((own - own[i]) / 2 + 0.5, 0.0, 1.0)
        among[i] = 0
        before = torch.clamp((others - own[i]) / 2 + 0.5, 0.0, 1.0)
        position, wrong = 1 + among.sum(), before.sum()
        rank = position + wrong
        precisions[i] = position / rank
        if wrong > 1e-5:
            to_own[i] = -((among * problem.box_losses).sum() + wrong) / rank
            to_others += before * (-to_own[i] / wrong)
    gradient[places[0]], gradient[places[1]] = to_own, to_others
    return 1 - precisions.mean(), gradient / len(own)


def looped_rank_sort(problem: Problem) -> tuple[Tensor, Tensor]:
    """The sum of both errors of RankSort loss and its gradient, by a loop over the positives."""
    own, others, gradient, places = _relevant(problem, 0.5)
    to_own, to_others = torch.zeros_like(own), torch.zeros_like(others)
    errors = torch.zeros_like(own)
    ious = problem.ious.detach()[places[0]]
    for i in own.argsort():
        among = torch.clamp(own - own[i] + 0.5, 0.0, 1.0)
        before = torch.clamp(others - own[i] + 0.5, 0.0, 1.0)
        position, wrong = among.sum(), before.sum()
        rank = position + wrong
        right_order = (ious >= ious[i]) * among
        sorting = (among * (1 - ious)).sum() / position
        sorting -= (right_order * (1 - ious)).sum() / right_order.sum()
        errors[i] = wrong / rank + sorting
        if wrong > 1e-10:
            to_own[i] -= wrong / rank
            to_others += before / rank
        lower = (ious < ious[i]) * among
        if lower.sum() > 1e-10:
            to_own[i] -= sorting
            to_own += lower * (sorting / lower.sum())
    gradient[places[0]], gradient[places[1]] = to_own, to_others
    return errors.mean(), gradient / len(own)


def _relevant(problem: Problem, delta: float) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    # negatives below the reach of every positive are left out, as released
    logits, targets = problem.logits.detach(), problem.targets
    positives = targets == 1
    own = logits[positives]
    near = (targets == 0) & (logits >= own.min() - delta)
    return own, logits[near], torch.zeros_like(logits), (positives, near)


def ours(problem: Problem, loss: Callable[[Problem], Tensor]) -> tuple[Tensor, ...]:
    """The loss and its gradients with respect to logits and IoUs (0 where it has none)."""
    value = loss(problem)
    leaves = (problem.logits, problem.ious)
    gradients = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return (value.detach(), *gradients)


def our_pap(problem: Problem) -> Tensor:
    """Every logit is ranked, however many."""
    logits, ious, targets, _ = problem
    return pap_loss(logits, ious, targets, ROWS, num_topk=len(logits))


def our_ap(problem: Problem) -> Tensor:
    return ap_loss(problem.logits, problem.targets)


def our_alrp(problem: Problem) -> Tensor:
    return alrp_loss(problem.logits, problem.targets, problem.box_losses)[0]


def our_rank_sort(problem: Problem) -> Tensor:
    return sum(rank_sort_loss(problem.logits, problem.ious.detach()), torch.zeros(()))


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """CPU time of each run."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return times


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that the run has allocated at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results = profiler.profiler.kineto_results
    changes = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes):
        held += change
        peak = max(peak, held)
    return peak


def check_equal(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    """Both computed the same, to what float32 sums give."""
    for mine, theirs in zip(got, wanted, strict=False):
        scale = float(theirs.abs().max())
        assert float((mine - theirs).abs().max()) <= 1e-3 * scale, (mine, theirs)


def measure_pap(size: int, repeats: int, peer_repeats: int) -> dict[str, float]:
    """PAP loss beside all pairs, time and memory."""
    problem = draw(size)

    def run() -> tuple[Tensor, ...]:
        return ours(problem, our_pap)

    def released() -> tuple[Tensor, ...]:
        return ours(problem, lambda each: all_pairs_pap(each, by_comparison))

    def mended() -> tuple[Tensor, ...]:
        return ours(problem, lambda each: all_pairs_pap(each, by_search))

    for peer_run in (released, mended):
        check_equal(run(), peer_run())
    own = statistics.median(seconds(run, repeats))
    peer, better = min(seconds(released, peer_repeats)), min(seconds(mended, peer_repeats))
    memory, peer_memory = peak_bytes(run), peak_bytes(released)
    return {
        "size": size,
        "seconds": own,
        "released_seconds": peer,
        "mended_seconds": better,
        "ratio": peer / own,
        "mended_ratio": better / own,
        "bytes": memory,
        "released_bytes": peer_memory,
        "memory_share": memory / peer_memory,
    }


LOOPED = {
    "AP": (our_ap, looped_ap),
    "aLRP": (our_alrp, looped_alrp),
    "RankSort": (our_rank_sort, looped_rank_sort),
}


def measure_loops(size: int, repeats: int, peer_repeats: int) -> dict[str, dict[str, float]]:
    """AP, aLRP and RankSort loss beside their loops."""
    problem = draw(size)
    results = {}
    for name, (loss, looped) in LOOPED.items():
        check_equal(ours(problem, loss), looped(problem))
        own = statistics.median(seconds(lambda loss=loss: ours(problem, loss), repeats))
        peer = min(seconds(lambda looped=looped: looped(problem), peer_repeats))
        results[name] = {
            "size": size,
            "seconds": own,
            "loop_seconds": peer,
            "ratio": peer / own,
        }
    return results


def measure_growth(small: int, large: int, repeats: int) -> dict[str, dict[str, float]]:
    """Time of every loss at both sizes, and how much faster than the size it grows."""
    results = {}
    losses = {"PAP": our_pap, **{name: loss for name, (loss, _) in LOOPED.items()}}
    few, many = draw(small), draw(large)
    for name, loss in losses.items():
        times = [
            statistics.median(seconds(lambda each=each, loss=loss: ours(each, loss), repeats))
            for each in (few, many)
        ]
        results[name] = {
            "seconds_small": times[0],
            "seconds_large": times[1],
            "growth": times[1] / times[0],
            "growth_over_size": times[1] / times[0] / (large / small),
        }
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--peer-repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pap = measure_pap(20_000, arguments.repeats, arguments.peer_repeats)
    loops = measure_loops(100_000, arguments.repeats, arguments.peer_repeats)
    growth = measure_growth(10_000, 1_000_000, max(3, arguments.repeats // 3))
    if arguments.json:
        print(json.dumps({"pap": pap, "loops": loops, "growth": growth}))
        return
    print(f"{POSITIVES:,} positives, forward and backward, one thread, CPU time")
    print(f"PAP, N = {pap['size']:,}")
    print(f"  ours                    {1e3 * pap['seconds']:9.1f} ms")
    for name, key in (("all pairs, as released", "released"), ("all pairs, mended", "mended")):
        ratio = pap["ratio"] if key == "released" else pap["mended_ratio"]
        print(f"  {name:24s}{1e3 * pap[f'{key}_seconds']:9.1f} ms  {ratio:8.1f} times ours")
    share = f"of {pap['released_bytes'] / 1e6:.1f} MB as released: {pap['memory_share']:.2%}"
    print(f"  memory                  {pap['bytes'] / 1e6:9.1f} MB {share}")
    for name, loop in loops.items():
        print(
            f"{name:8s} N = {loop['size']:,}  {1e3 * loop['seconds']:8.1f} ms,"
            f" loop {1e3 * loop['loop_seconds']:8.1f} ms  {loop['ratio']:8.1f} times ours"
        )
    for name, grown in growth.items():
        print(
            f"{name:8s} N = 10,000 to 1,000,000  {1e3 * grown['seconds_small']:.1f} to"
            f" {1e3 * grown['seconds_large']:.1f} ms: {grown['growth']:.0f} times,"
            f" {grown['growth_over_size']:.2f} times as fast as N"
        )


if __name__ == "__main__":
    main()
