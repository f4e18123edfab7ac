"""AP, aLRP, parameterized AP and RankSort loss against published numbers and oracles."""

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from losses import alrp_loss, ap_loss, pap_loss, rank_sort_loss

TESTS = Path(__file__).parents[1]


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracles = load(TESTS / "losses" / "ranking_oracles.py")

_STORED = np.load(TESTS / "golden" / "reference_small.npz")
GOLDEN = {key: torch.from_numpy(_STORED[key]) for key in _STORED.files}
# 8 blocks of 32 seeds: 256 problems for each loss
BLOCKS = range(8)
BLOCK = 32


def close(got: Tensor | None, wanted: Tensor) -> None:
    assert got is not None
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def close_to_golden(got: Tensor | None, wanted: Tensor) -> None:
    assert got is not None
    assert float((got - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


def leaf(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def test_ap_golden() -> None:
    logits = leaf(GOLDEN["ap.logits"])
    loss = ap_loss(logits, GOLDEN["ap.targets"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), GOLDEN["ap.loss"], rtol=1e-6, atol=0.0)
    close_to_golden(logits.grad, GOLDEN["ap.grad"])


def test_alrp_golden() -> None:
    logits = leaf(GOLDEN["ap.logits"])  # stored once for both
    loss, rank, order = alrp_loss(logits, GOLDEN["ap.targets"], GOLDEN["alrp.regression_losses"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), GOLDEN["alrp.loss"], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(rank, GOLDEN["alrp.rank"], rtol=1e-6, atol=0.0)
    assert torch.equal(order, GOLDEN["alrp.order"])
    close_to_golden(logits.grad, GOLDEN["alrp.grad"])


@pytest.mark.parametrize("case", ["pap", "pap_top100"])
def test_pap_golden(case: str) -> None:
    logits, ious = leaf(GOLDEN[f"{case}.logits"]), leaf(GOLDEN[f"{case}.ious"])
    loss = pap_loss(
        logits,
        ious,
        GOLDEN[f"{case}.targets"],
        GOLDEN[f"{case}.ctrl_points"],
        num_topk=int(GOLDEN[f"{case}.num_topk"]),
    )
    loss.backward()
    torch.testing.assert_close(loss.detach(), GOLDEN[f"{case}.loss"], rtol=1e-6, atol=0.0)
    close_to_golden(logits.grad, GOLDEN[f"{case}.grad_logits"])
    close_to_golden(ious.grad, GOLDEN[f"{case}.grad_ious"])


def block_of_cases(block: int) -> list[Any]:
    return [oracles.random_case(seed) for seed in range(block * BLOCK, (block + 1) * BLOCK)]


def test_the_random_problems_have_what_they_are_there_for() -> None:
    seen: Counter[str] = Counter()
    for block in BLOCKS:
        for case in block_of_cases(block):
            own = case.logits[case.targets == 1]
            gaps = case.logits[case.targets != -1][:, None] - own
            xs = case.rows[:, 0::2]
            seen["tied pairs"] += bool((gaps == 0.0).sum() > len(own))
            seen["gaps of exactly 1"] += bool((gaps.abs() == 1.0).any())
            seen["saturated pairs"] += bool((gaps.abs() > 1.0).any())
            seen["interpolated pairs"] += bool(((gaps != 0.0) & (gaps.abs() < 1.0)).any())
            seen["equal IoUs"] += len(case.ious[case.targets == 1].unique()) < len(own)
            seen["equal x"] += bool((xs.diff(dim=1) == 0.0).any())
            kept = case.logits[case.targets != -1].sort(descending=True).values[: case.num_topk]
            seen["positives outside the top"] += bool((own < kept[-1]).any())
            seen["steps"] += case.delta == 0.0
            seen["four rows"] += len(case.rows) == 4
            seen["all"] += 1
    assert seen["all"] >= 200
    assert min(seen.values()) >= 20, seen


@pytest.mark.parametrize("block", BLOCKS)
def test_ap_equals_the_loop(block: int) -> None:
    for case in block_of_cases(block):
        logits = leaf(case.logits)
        loss = ap_loss(logits, case.targets, case.delta)
        loss.backward()
        wanted, gradient = oracles.ap(case.logits, case.targets, case.delta)
        close(loss.detach(), wanted)
        close(logits.grad, gradient)


@pytest.mark.parametrize("block", BLOCKS)
def test_alrp_equals_the_loop(block: int) -> None:
    for case in block_of_cases(block):
        logits = leaf(case.logits)
        box_losses = 2.0 - 2.0 * case.ious[case.targets == 1]
        loss, rank, order = alrp_loss(logits, case.targets, box_losses, case.delta)
        loss.backward()
        wanted, gradient, ranks = oracles.alrp(
            case.logits, case.targets, box_losses, case.delta, 1e-5
        )
        close(loss.detach(), wanted)
        close(rank, ranks)
        close(logits.grad, gradient)
        own = case.logits[case.targets == 1]
        assert order.tolist() == sorted(range(len(own)), key=own.tolist().__getitem__)


@pytest.mark.parametrize("block", BLOCKS)
def test_pap_equals_all_pairs(block: int) -> None:
    for case in block_of_cases(block):
        logits, ious = leaf(case.logits), leaf(case.ious)
        loss = pap_loss(logits, ious, case.targets, case.rows, case.num_topk)
        wanted, to_logits, to_ious = oracles.pap(
            case.logits, case.ious, case.targets, case.rows, case.num_topk
        )
        close(loss.detach(), wanted)
        if torch.isfinite(wanted):
            loss.backward()
            close(logits.grad, to_logits)
            close(ious.grad, to_ious)


@pytest.mark.parametrize("block", BLOCKS)
def test_rank_sort_equals_the_loop(block: int) -> None:
    for case in block_of_cases(block):
        # an IoU of 0 would make the positive a negative
        ious = torch.where(case.targets == 1, case.ious.clamp(min=0.125), case.targets.double())
        logits = leaf(case.logits)
        ranking, sorting = rank_sort_loss(logits, ious, case.delta)
        (to_ranking,) = torch.autograd.grad(ranking, logits, retain_graph=True)
        (to_sorting,) = torch.autograd.grad(sorting, logits, retain_graph=True)
        wanted = oracles.rank_sort(case.logits, ious, case.delta, 1e-10)
        for got, want in zip(
            (ranking.detach(), sorting.detach(), to_ranking, to_sorting), wanted, strict=True
        ):
            close(got, want)
        (ranking + sorting).backward()
        close(logits.grad, wanted[2] + wanted[3])


def test_rank_sort_with_many_positives_of_few_overlaps() -> None:
    """More levels than the random problems have, and many equal overlaps and logits."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1200, generator=generator, dtype=torch.float64)
    logits[::3] = (logits[::3] * 4.0).round() / 4.0
    ious = (torch.rand(1200, generator=generator, dtype=torch.float64) * 20.0).ceil() / 20.0
    ious[:77] = 0.0
    given = leaf(logits)
    ranking, sorting = rank_sort_loss(given, ious)
    (ranking + sorting).backward()
    wanted = oracles.rank_sort(logits, ious, 0.5, 1e-10)
    close(ranking.detach(), wanted[0])
    close(sorting.detach(), wanted[1])
    close(given.grad, wanted[2] + wanted[3])


def test_the_benchmark_measures_the_same_losses_and_little_memory() -> None:
    """Its peers equal ours (it checks that itself); memory is a few numbers for each logit."""
    bench = load(TESTS / "benchmarks" / "bench_ranking.py")
    bench.POSITIVES = 200
    assert set(bench.measure_loops(2_000, 1, 1)) == {"AP", "aLRP", "RankSort"}
    assert bench.measure_pap(2_000, 1, 1)["memory_share"] < 0.05
    bench.POSITIVES = 1_000
    problem = bench.draw(20_000)
    for loss in (bench.our_pap, bench.our_ap, bench.our_alrp, bench.our_rank_sort):
        peak = bench.peak_bytes(lambda loss=loss: bench.ours(problem, loss))
        assert 8 * 20_000 < peak < 40 * 8 * 20_000, loss
