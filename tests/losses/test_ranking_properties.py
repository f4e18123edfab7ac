"""Ranking losses: published values, invariances, derivatives, and the answers at the edges."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from losses import PapFunctions, alrp_loss, ap_loss, pap_loss, rank_sort_loss

# the released control points for RetinaNet
RETINANET = PapFunctions.from_json(
    {
        "H2": [[0.4182, 0.0277], [0.4948, 0.2187], [0.6882, 0.2624], [0.802, 0.6688]],
        "I2": [[0.1279, 0.3696], [0.3056, 0.4708], [0.5198, 0.529], [0.6983, 0.6709]],
        "I3": [[0.0931, 0.0289], [0.3607, 0.5585], [0.4823, 0.7131], [0.6291, 0.8162]],
        "I1": [[0.4914, 0.1499], [0.5492, 0.1664], [0.6259, 0.3051], [0.7945, 0.6195]],
        "H1": [[0.413, 0.0798], [0.4356, 0.3571], [0.5361, 0.7063], [0.8097, 0.9083]],
    }
).rows()
IDENTITY = PapFunctions.identity(1).rows()


def ap(logits: Tensor, targets: Tensor) -> Tensor:
    return ap_loss(logits, targets)


def alrp(logits: Tensor, targets: Tensor) -> Tensor:
    box_losses = torch.linspace(0.2, 1.0, int((targets == 1).sum()), dtype=torch.float64)
    return alrp_loss(logits, targets, box_losses)[0]


def pap(logits: Tensor, targets: Tensor) -> Tensor:
    return pap_loss(logits, 0.7 * (targets == 1), targets, RETINANET)


def rank_sort(logits: Tensor, targets: Tensor) -> Tensor:
    falling = torch.linspace(0.9, 0.5, len(targets), dtype=torch.float64)
    ranking, sorting = rank_sort_loss(logits, torch.where(targets == 1, falling, targets.double()))
    return ranking + sorting


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES = pytest.mark.parametrize("loss", [ap, alrp, pap, rank_sort])


def with_gradient(loss: Loss, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    given_logits = logits.clone().requires_grad_()
    value = loss(given_logits, targets)
    (gradient,) = torch.autograd.grad(value, given_logits)
    return value.detach(), gradient


def problem(seed: int, size: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=generator, dtype=torch.float64)
    targets = torch.where(torch.rand(size, generator=generator) < 0.2, 1, 0)
    targets[0], targets[1], targets[2] = 1, 0, -1
    return logits, targets


@pytest.mark.parametrize(
    ("gap", "value", "gradient"),
    [
        (0.0, 0.4816, None),
        (0.3, 0.4733, None),
        (0.9, None, 0.497),
        (1.1, 0.884, 0.0),
        (3.0, 0.884, 0.0),
    ],
)
def test_pap_by_the_gap(gap: float, value: float | None, gradient: float | None) -> None:
    """One positive of IoU 0.85, one negative higher by the gap: what the release gives."""
    logits = torch.tensor([0.0, gap], dtype=torch.float64, requires_grad=True)
    ious = torch.tensor([0.85, 0.0], dtype=torch.float64)
    loss = pap_loss(logits, ious, torch.tensor([1, 0]), RETINANET)
    loss.backward()
    assert logits.grad is not None
    if value is not None:
        assert loss.item() == pytest.approx(value, abs=6e-4)
    if gradient is not None:
        assert logits.grad.tolist() == pytest.approx([-gradient, gradient], abs=6e-4)


@given(
    theta=st.lists(st.floats(0.0, 1.0), min_size=30, max_size=30),
    gaps=st.lists(st.floats(1.0, 9.0), min_size=1, max_size=9),
)
@settings(max_examples=60, deadline=None)
def test_pap_is_0_when_all_is_right_and_1_when_all_is_wrong(
    theta: list[float], gaps: list[float]
) -> None:
    # a function that reaches 1, or leaves 0, by a jump has another value at 1 and 0
    inner = [min(max(value, 0.01), 0.99) for value in theta]
    rows = PapFunctions.from_theta(inner, points=3).rows()
    logits = torch.tensor([0.0, *(-gap for gap in gaps)], dtype=torch.float64)
    targets = torch.tensor([1] + [0] * len(gaps))
    right = pap_loss(logits, targets.double(), targets, rows)
    wrong = pap_loss(-logits, torch.zeros_like(logits), targets, rows)
    assert right.item() == pytest.approx(0.0, abs=1e-7)
    assert wrong.item() == pytest.approx(1.0, abs=1e-7)


@given(
    theta=st.lists(st.sampled_from([0.0, 1.0, 0.5, 1e-300, 1e-12, 0.3]), min_size=20, max_size=20),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_every_theta_gives_a_loss(theta: list[float], seed: int) -> None:
    """Flat and upright pieces, at 0 and at 1: never NaN, and infinite only by division by 0."""
    logits, targets = problem(seed, size=20)
    logits = (4.0 * logits).round() / 4.0
    logits.requires_grad_()
    ious = torch.where(targets == 1, logits.detach().sigmoid(), 0.0).requires_grad_()
    rows = PapFunctions.from_theta(theta, points=2).rows()
    loss = pap_loss(logits, ious, targets, rows)
    assert not torch.isnan(loss)
    if torch.isfinite(loss):
        loss.backward()
        assert torch.isfinite(logits.grad).all()
        assert torch.isfinite(ious.grad).all()


def test_functions_at_points_of_equal_x() -> None:
    """At x = 0 the last point's value, elsewhere the first's: what the release computes."""
    row = [0.0, 0.0, 0.0, 0.3, 0.5, 0.4, 0.5, 0.6, 1.0, 0.8, 1.0, 1.0]
    zero = [0.0, 0.0, 1.0, 0.0]  # I2 and I3 are left out of the loss

    def first_function(iou: float) -> float:
        one = torch.tensor([1])
        x = torch.tensor([iou], dtype=torch.float64)
        loss = pap_loss(torch.zeros_like(x), x, one, [*[zero] * 3, row])
        return 1.0 - loss.item()

    at = {iou: first_function(iou) for iou in (0.0, 0.25, 0.5, 0.5 + 1e-9, 0.75, 1.0)}
    wanted = {0.0: 0.3, 0.25: 0.35, 0.5: 0.4, 0.5 + 1e-9: 0.6, 0.75: 0.7, 1.0: 0.8}
    assert at == pytest.approx(wanted, abs=1e-7)


def test_pap_where_h1_counts_nothing() -> None:
    zero, line = [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]
    logits = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    iou, one = torch.tensor([0.6]).double(), torch.tensor([1])
    nothing = pap_loss(logits, iou, one, [zero, line, line, line, zero])
    nothing.backward()
    assert nothing.item() == pytest.approx(0.4)
    assert logits.grad is not None
    assert logits.grad.item() == 0.0
    assert torch.isinf(pap_loss(logits, iou, one, [line, line, line, line, zero]))


def test_pap_derivatives_are_those_of_the_value() -> None:
    """By central differences; H1 fixed at a step that small moves do not reach."""
    logits, targets = problem(5)
    ious = torch.where(targets == 1, logits.sigmoid(), 0.0)
    rows = RETINANET[:4]
    given_logits, given_ious = logits.clone().requires_grad_(), ious.clone().requires_grad_()
    pap_loss(given_logits, given_ious, targets, rows).backward()
    assert given_logits.grad is not None
    assert given_ious.grad is not None
    assert int((given_logits.grad != 0.0).sum()) > 40
    for place in range(len(logits)):
        move = torch.zeros_like(logits)
        move[place] = 1e-6
        up, down = (pap_loss(logits + s * move, ious, targets, rows) for s in (1, -1))
        assert given_logits.grad[place].item() == pytest.approx((up - down).item() / 2e-6, abs=1e-7)
        if targets[place] == 1:
            up, down = (pap_loss(logits, ious + s * move, targets, rows) for s in (1, -1))
            slope = (up - down).item() / 2e-6
            assert given_ious.grad[place].item() == pytest.approx(slope, abs=1e-7)


@LOSSES
@given(seed=st.integers(0, 999), shift=st.integers(-4096, 4096))
@settings(max_examples=15, deadline=None)
def test_a_shift_of_all_logits_changes_nothing(loss: Loss, seed: int, shift: int) -> None:
    logits, targets = problem(seed)
    logits = (logits * 1024.0).round() / 1024.0
    before, after = (with_gradient(loss, each, targets) for each in (logits, logits + shift / 8))
    torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", [ap, pap])
@given(seed=st.integers(0, 999))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_logits_does_not_matter(loss: Loss, seed: int) -> None:
    logits, targets = problem(seed)
    mixed = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    value, gradient = with_gradient(loss, logits, targets)
    other, moved = with_gradient(loss, logits[mixed], targets[mixed])
    torch.testing.assert_close(other, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved, gradient[mixed], rtol=1e-10, atol=1e-12)


@LOSSES
def test_a_batch_in_any_shape(loss: Loss) -> None:
    logits, targets = problem(3)
    value, gradient = with_gradient(loss, logits, targets)

    def shaped(x: Tensor, y: Tensor) -> Tensor:
        return loss(x, y) if loss is not rank_sort else loss(x.flatten(), y.flatten())

    other, moved = with_gradient(shaped, logits.reshape(6, 10), targets.reshape(6, 10))
    assert torch.equal(other, value)
    assert torch.equal(moved.flatten(), gradient)


@LOSSES
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_without_positives_the_loss_is_0_with_gradients_0(loss: Loss, value: float) -> None:
    logits = torch.tensor([value, 1.0, -2.0], requires_grad=True)
    result = loss(logits, torch.tensor([0, 0, -1]))
    result.backward()
    assert result.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.tolist() == [0.0, 0.0, 0.0]


def test_without_positives_ious_get_gradients_too_and_alrp_an_empty_rank() -> None:
    logits, ious = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    targets = torch.zeros(2, 3, dtype=torch.long)
    pap_loss(logits, ious, targets, IDENTITY).backward()
    assert ious.grad is not None
    assert ious.grad.tolist() == [[0.0] * 3] * 2
    loss, rank, order = alrp_loss(logits, targets, torch.zeros(0))
    assert (loss.item(), rank.tolist(), order.tolist()) == (0.0, [], [])


@LOSSES
@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_logit_that_is_not_finite_makes_nan(loss: Loss, target: int, value: float) -> None:
    logits, targets = problem(1)
    logits[targets == target] = torch.where(
        torch.arange(int((targets == target).sum())) == 0, value, logits[targets == target]
    )
    result, gradient = with_gradient(loss, logits, targets)
    assert torch.isnan(result)
    assert torch.isnan(gradient).any()


@LOSSES
def test_only_nan_makes_nan(loss: Loss) -> None:
    logits, targets = problem(1)
    assert torch.isnan(with_gradient(loss, torch.full_like(logits, torch.nan), targets)[0])


@LOSSES
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 99.0])
def test_ignored_logits_have_no_part(loss: Loss, value: float) -> None:
    logits, targets = problem(2)
    wanted = with_gradient(loss, logits, targets)
    logits[targets == -1] = value
    assert torch.equal(with_gradient(loss, logits, targets)[0], wanted[0])
    assert torch.equal(with_gradient(loss, logits, targets)[1], wanted[1])


def test_nan_in_what_comes_with_the_logits_makes_nan() -> None:
    logits, targets = problem(2)
    nan = torch.full_like(logits, torch.nan)
    bad = torch.where(targets == 1, nan, 0.0)
    assert torch.isnan(pap_loss(logits, bad, targets, IDENTITY))
    assert torch.isnan(rank_sort_loss(logits, bad)[0])
    assert torch.isnan(alrp_loss(logits, targets, nan[targets == 1])[0])


def test_nan_logits_beyond_a_full_top_make_nan() -> None:
    logits, targets = problem(2)
    assert torch.isnan(
        pap_loss(logits * torch.nan, targets.double(), targets, IDENTITY, num_topk=5)
    )
    logits[1] = -torch.inf  # a negative that is not ranked
    given_logits = logits.clone().requires_grad_()
    loss = pap_loss(given_logits, targets.clamp(min=0).double(), targets, IDENTITY, num_topk=5)
    loss.backward()
    assert torch.isnan(loss)
    assert given_logits.grad is not None
    assert torch.isnan(given_logits.grad).any()


def test_top_takes_equal_logits_by_index_and_keeps_all_positives() -> None:
    """Logits 0: the first two are ranked, the positive after them still asks."""
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    targets, ious = torch.tensor([0, -1, 0, 1]), torch.tensor([0.0, 0.0, 0.0, 1.0]).double()
    loss = pap_loss(logits, ious, targets, IDENTITY, num_topk=2)
    # both negatives count 1/2 above and below the line, the positive is in neither sum
    assert loss.item() == pytest.approx(1.0, abs=1e-7)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([0.5, 0.0, 0.5, -1.0], abs=1e-7)
    all_ranked = pap_loss(logits, ious, targets, IDENTITY, num_topk=3)
    assert all_ranked.item() == pytest.approx(2.0 / 3.0, abs=1e-7)


@pytest.mark.parametrize("loss", [ap, alrp, rank_sort])
def test_perfect_ranking_has_no_error(loss: Loss) -> None:
    logits, targets = torch.tensor([9.0, 6.0, 0.0, -1.0]), torch.tensor([1, 1, 0, 0])
    value, gradient = with_gradient(loss, logits, targets)
    assert value.item() == 0.0
    assert gradient.tolist() == [0.0] * 4


@LOSSES
@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtypes(loss: Loss, dtype: torch.dtype, result: torch.dtype) -> None:
    logits, targets = problem(4)
    rounded = logits.to(dtype)
    value, gradient = with_gradient(loss, rounded, targets)
    wanted, slope = with_gradient(loss, rounded.double(), targets)
    assert (value.dtype, gradient.dtype) == (result, dtype)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
    torch.testing.assert_close(gradient.double(), slope, rtol=torch.finfo(dtype).eps, atol=1e-7)


class OperationCount(TorchDispatchMode):
    """Counts the tensor operations that run inside it."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


@LOSSES
def test_operations_do_not_grow_with_the_positives(loss: Loss) -> None:
    """RankSort's grow with the logarithm: by a constant for each level."""

    def operations(size: int) -> int:
        logits, targets = problem(6, size)
        with OperationCount() as counter:
            with_gradient(loss, logits, targets)
        return counter.calls

    few, many = operations(100), operations(6400)
    assert few < 1000
    if loss is rank_sort:
        assert 0 < many - few <= 7 * 120  # 6 levels more, or 7
    else:
        assert many == few


def test_what_is_refused() -> None:
    logits, targets = problem(7)
    short = logits[:3]
    for call in (
        lambda: ap_loss(short, targets),
        lambda: alrp_loss(short, targets, short),
        lambda: rank_sort_loss(short, targets),
        lambda: pap_loss(logits, short, targets, IDENTITY),
    ):
        with pytest.raises(ValueError, match="must have the shape of logits"):
            call()
    with pytest.raises(ValueError, match="one per positive"):
        alrp_loss(logits, targets, logits)
    with pytest.raises(ValueError, match=r"delta must be .*-0\.5"):
        ap_loss(logits, targets, delta=-0.5)
    with pytest.raises(ValueError, match="num_topk must be at least 1, got 0"):
        pap_loss(logits, logits, targets, IDENTITY, num_topk=0)
    line = [0.0, 0.0, 1.0, 1.0]
    for rows, message in (
        ([line] * 3, "4 or 5 rows, got 3"),
        ([line] * 3 + [[0.0, 0.0, 1.0]], "x, y pairs"),
        ([line] * 3 + [[0.0, 0.0, 0.7, 0.2, 0.6, 0.4, 1.0, 1.0]], "must rise from 0 to 1"),
        ([line] * 3 + [[0.1, 0.0, 1.0, 1.0]], "must rise from 0 to 1"),
        ([line] * 3 + [[0.0, 0.0, 1.0, float("nan")]], "must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            pap_loss(logits, logits, targets, rows)
