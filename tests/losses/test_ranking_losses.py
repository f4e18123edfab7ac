"""Modules of the ranking losses: self-balancing, precision, settings."""

import copy

import pytest
import torch
from mmdet.registry import MODELS

import losses  # noqa: F401  registers them
from losses.errors import DefinitionError
from losses.ranked_batch import RankedBatch, box_overlaps
from losses.ranking import PapFunctions

IDENTITY = PapFunctions.identity().to_json()
ALL = (
    {"type": "APRankingLoss"},
    {"type": "ALRPRankingLoss"},
    {"type": "PAPRankingLoss", "functions": IDENTITY},
    {"type": "RankSortRankingLoss"},
)


def batch_of(seed=0, positives=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((40,), 3)
    labels[:positives] = torch.randint(0, 3, (positives,), generator=generator)
    goals = torch.tensor([-0.5, -0.5, 0.5, 0.5], dtype=dtype).expand(positives, 4)
    shift = torch.randn(positives, 4, generator=generator, dtype=dtype) * 0.1
    return RankedBatch(
        scores=torch.randn(40, 3, generator=generator, dtype=dtype).requires_grad_(),
        labels=labels,
        counted=torch.ones(40, dtype=torch.bool),
        positive=torch.arange(positives),
        boxes=(goals + shift).requires_grad_(),
        goals=goals,
    )


def test_alrp_balances_after_its_number_of_steps():
    """The weight is (mean box + mean classification) / mean box of the steps since the last."""
    loss = MODELS.build({"type": "ALRPRankingLoss", "balance_start": 7.0, "balance_every": 3})
    boxes, cls = [], []
    for step in range(7):
        weight = float(loss.balance)
        values = loss(batch_of(step))
        boxes.append(values["loss_bbox"].item())
        cls.append(values["loss_cls"].item())
        if step in (2, 5):
            raw = [value / weight for value in boxes[step - 2 : step]]
            new = float(loss.balance)
            raw.append(boxes[step] / new)  # the step that balances uses the new weight already
            assert new == pytest.approx(1 + sum(cls[step - 2 : step + 1]) / sum(raw), rel=1e-5)
            assert new != weight
        else:
            assert float(loss.balance) == weight
    assert int(loss.balance_steps) == 1


def test_steps_without_positives_and_evaluation_leave_the_balance_alone():
    loss = MODELS.build({"type": "ALRPRankingLoss", "balance_every": 2})
    loss(batch_of(0, positives=0))
    assert int(loss.balance_steps) == 0
    loss(batch_of(0))
    before = copy.deepcopy(loss.state_dict())
    loss.eval()
    for _ in range(3):
        loss(batch_of(1))
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


def test_alrp_goes_on_from_a_checkpoint_as_if_it_had_not_stopped():
    settings = {"type": "ALRPRankingLoss", "balance_every": 4}
    whole, first = MODELS.build(settings), MODELS.build(settings)
    expected = [whole(batch_of(step))["loss_bbox"].item() for step in range(10)]
    found = [first(batch_of(step))["loss_bbox"].item() for step in range(6)]
    second = MODELS.build(settings)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    found += [second(batch_of(step))["loss_bbox"].item() for step in range(6, 10)]
    assert found == expected
    fresh = MODELS.build(settings)
    assert float(fresh.balance) == 50
    assert fresh(batch_of(6))["loss_bbox"].item() != found[6]


@pytest.mark.parametrize("settings", [*ALL[:1], *ALL[2:]], ids=lambda each: each["type"])
def test_the_others_have_no_state(settings):
    assert not MODELS.build(settings).state_dict()


@pytest.mark.parametrize("settings", ALL, ids=lambda each: each["type"])
def test_loss_weight_is_a_factor(settings):
    one, five = MODELS.build(settings), MODELS.build({**settings, "loss_weight": 5.0})
    for name in ("loss_cls", "loss_pap"):
        values = one(batch_of()), five(batch_of())
        if name in values[0]:
            torch.testing.assert_close(values[1][name], 5 * values[0][name])


@pytest.mark.parametrize("settings", [ALL[1], ALL[3]], ids=lambda each: each["type"])
@pytest.mark.parametrize("box_loss", ["GIoULoss", "IoULoss"])
def test_box_weight_and_box_loss(settings, box_loss):
    batch = batch_of(dtype=torch.float64)
    one = MODELS.build({**settings, "box_loss": box_loss})
    five = MODELS.build({**settings, "box_loss": box_loss, "box_weight": 5.0})
    first, second = one(batch), five(batch)
    torch.testing.assert_close(second["loss_bbox"], 5 * first["loss_bbox"])
    gradient = torch.autograd.grad(first["loss_bbox"], batch.boxes)[0]
    kind = box_loss.removesuffix("Loss").lower()
    error = 1 - box_overlaps(batch.boxes, batch.goals, kind)
    if settings["type"] == "RankSortRankingLoss":
        weight = batch.scores.detach()[:5].sigmoid().max(dim=1).values
        mean = (error * weight).sum() / weight.sum()
        expected = torch.autograd.grad(mean.log() * first["loss_bbox"].item(), batch.boxes)[0]
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    else:
        # the lower a positive is ranked, the fewer terms its error is in, but in one at least
        assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("settings", [ALL[1], ALL[3]], ids=lambda each: each["type"])
def test_other_box_losses_are_refused(settings):
    with pytest.raises(ValueError, match="GIoULoss or IoULoss"):
        MODELS.build({**settings, "box_loss": "L1Loss"})


def test_pap_checks_its_functions():
    broken = copy.deepcopy(IDENTITY)
    broken["I2"][1][0] = 0.1
    with pytest.raises(DefinitionError, match="I2"):
        MODELS.build({"type": "PAPRankingLoss", "functions": broken})


def test_pap_checks_its_overlap():
    with pytest.raises(ValueError, match=r"overlap must be giou or iou or l1, got 'diou'"):
        MODELS.build({**ALL[2], "overlap": "diou"})


@pytest.mark.parametrize("settings", ALL, ids=lambda each: each["type"])
def test_softmax_is_refused(settings):
    with pytest.raises(ValueError, match="use_sigmoid"):
        MODELS.build({**settings, "use_sigmoid": False})


@pytest.mark.parametrize("settings", ALL, ids=lambda each: each["type"])
def test_perfect_boxes_do_not_divide_by_zero(settings):
    batch = batch_of()
    boxes = batch.goals.clone().requires_grad_()
    perfect = RankedBatch(
        batch.scores, batch.labels, batch.counted, batch.positive, boxes, batch.goals
    )
    values = MODELS.build(settings)(perfect)
    sum(value for name, value in values.items() if "loss" in name).backward()
    assert all(torch.isfinite(value) for value in values.values())
    assert torch.isfinite(boxes.grad).all()
    assert torch.isfinite(batch.scores.grad).all()


def test_overlaps_by_hand():
    goals = torch.tensor([[0.0, 0, 1, 1]]).expand(4, 4)
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.5, 0, 1.5, 1], [2, 0, 3, 1], [0.1, 0.1, 1, 1]])
    iou = [1, 1 / 3, 0, 0.81]
    giou = [1, 1 / 3, -1 / 3, 0.81]
    torch.testing.assert_close(box_overlaps(boxes, goals, "iou"), torch.tensor(iou))
    expected = (torch.tensor(giou) + 1) / 2
    torch.testing.assert_close(box_overlaps(boxes, goals, "giou"), expected)
    torch.testing.assert_close(box_overlaps(boxes, goals, "l1"), torch.tensor([1, 0, 0, 0.8]))


def test_accuracy_counts_positives_only():
    loss = MODELS.build(ALL[0])
    scores = torch.tensor([[2.0, 1, 0], [0, 1, 2], [5, 0, 0]])
    assert loss.get_accuracy(scores, torch.tensor([0, 1, 3]))["acc"].item() == 50
    assert loss.get_accuracy(scores[:0], torch.zeros(0))["acc"].item() == 0
