"""Ranking losses in two processes, against one process with the whole batch."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

import losses  # noqa: F401  registers the heads
from losses.processes import gradient_times, rows_of_all_processes, sum_over_processes
from losses.ranking import PapFunctions

# isort: split
from mmdet.registry import MODELS

FUNCTIONS = PapFunctions.from_theta([0.3, 0.15, 0.2, 0.3, 0.4, 0.35, 0.5, 0.55] * 5).to_json()
PAP = {"type": "PAPRankingLoss", "functions": FUNCTIONS, "box_gradient_scale": 2.5}
CASES = {
    "all": ({**PAP, "all_processes": True}, (22, 60), 0),
    "all, few ranked": ({**PAP, "all_processes": True, "num_topk": 40}, (22, 60), 0),
    "all, ties": ({**PAP, "all_processes": True, "num_topk": 31}, (30, 60), 1),
    "all, no regions in one": ({**PAP, "all_processes": True}, (0, 60), 0),
    "own": (PAP, (22, 60), 0),
}


def head_of(loss):
    torch.manual_seed(5)
    head = MODELS.build(
        {
            "type": "RankingHead",
            "head": "Shared2FCBBoxHead",
            "loss_ranking": loss,
            "in_channels": 4,
            "fc_out_channels": 8,
            "roi_feat_size": 2,
            "num_classes": 3,
            "reg_decoded_bbox": True,
        }
    ).double()
    with torch.no_grad():  # scores and boxes that differ
        head.fc_cls.weight.mul_(200)
        head.fc_reg.weight.mul_(200)
    return head


def batch_of(first, last, ties):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(60, 4, 2, 2, generator=generator, dtype=torch.float64)
    if ties:
        features = features[torch.arange(60) % 6]
    corners = torch.rand(60, 2, generator=generator, dtype=torch.float64) * 40
    boxes = torch.cat([corners, corners + 20], dim=1)
    labels = torch.randint(0, 9, (60,), generator=generator).clamp(max=3)
    targets = boxes + torch.randn(60, 4, generator=generator, dtype=torch.float64) * 2
    weights = (torch.rand(60, generator=generator) > 0.1).double()
    rois = torch.cat([torch.zeros(60, 1, dtype=torch.float64), boxes], dim=1)
    return [each[first:last] for each in (features, rois, labels, weights, targets)]


def gradients(loss, first, last, ties):
    head = head_of(loss)
    features, rois, labels, weights, targets = batch_of(first, last, ties)
    value = head.loss(*head(features), rois, labels, weights, targets, None)["loss_pap"]
    value.backward()
    return value.detach(), torch.cat([p.grad.flatten() for p in head.parameters()])


def share(rank, folder, function, *arguments):
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        torch.save(function(rank, *arguments), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def in_two_processes(function, folder, *arguments):
    torch.multiprocessing.spawn(share, (str(folder), function, *arguments), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def every_case(rank):
    """One start of two processes for all cases: starting them takes longest."""
    found = {}
    for name, (loss, ends, ties) in CASES.items():
        first, last = (0, ends[0]) if rank == 0 else ends
        value, gradient = gradients(loss, first, last, ties)
        found[name] = (value, sum_over_processes(gradient) / 2)
    own = torch.full((3 - rank, 2), 1.0 + rank, requires_grad=True)
    rows = rows_of_all_processes(own)
    rows.sum().backward()
    found["rows"] = rows.detach(), own.grad
    balance = MODELS.build({"type": "ALRPRankingLoss", "balance_every": 1})
    balance._follow(torch.tensor(2.0 + rank), torch.tensor(1.0), rank == 1)
    found["balance"] = balance.balance, balance.balance_steps
    return found


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    return in_two_processes(every_case, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("all")])
def test_ranked_over_all_processes_is_the_whole_batch(name, shares):
    loss, (_, end), ties = CASES[name]
    value, gradient = gradients(loss, 0, end, ties)
    assert gradient.abs().max() > 1e-4
    for own_value, mean_gradient in (each[name] for each in shares):
        torch.testing.assert_close(own_value, value, rtol=1e-9, atol=1e-12)
        largest = float(gradient.abs().max())
        torch.testing.assert_close(mean_gradient, gradient, rtol=1e-7, atol=1e-9 * largest)


def test_ranked_by_itself_each_process_has_its_own_loss(shares):
    loss, (middle, end), ties = CASES["own"]
    first, second = gradients(loss, 0, middle, ties), gradients(loss, middle, end, ties)
    torch.testing.assert_close(shares[0]["own"][0], first[0])
    torch.testing.assert_close(shares[1]["own"][0], second[0])
    torch.testing.assert_close(shares[0]["own"][1], (first[1] + second[1]) / 2)
    whole = gradients(loss, 0, end, ties)
    assert not torch.allclose(whole[1], shares[0]["own"][1], rtol=1e-2)


def test_rows_of_different_number_are_joined_in_order(shares):
    for rank, found in enumerate(each["rows"] for each in shares):
        assert found[0][:, 0].tolist() == [1, 1, 1, 2, 2]
        assert torch.equal(found[1], torch.ones(3 - rank, 2))


def test_all_processes_have_one_balance(shares):
    """Only the second had positives: its values count alone."""
    for balance, steps in (each["balance"] for each in shares):
        assert balance == 1 + 1 / 3
        assert steps == 0


def test_one_process_needs_no_group():
    rows = torch.randn(4, 2)
    assert rows_of_all_processes(rows) is rows
    assert torch.equal(sum_over_processes(rows), rows)


def test_gradient_times_keeps_the_value():
    value = torch.randn(3, requires_grad=True)
    scaled = gradient_times(value, 2.5)
    assert torch.equal(scaled, value)
    scaled.sum().backward()
    assert torch.equal(value.grad, torch.full((3,), 2.5))
