"""What is kept of assigners gives what they would give, and no more than was asked before."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import losses  # noqa: F401  # isort: skip  - before mmdet: installs the stand-in for mmcv's ops

import pytest
import torch
from mmdet.models.task_modules.assigners import ATSSAssigner, MaxIoUAssigner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from workers import TrialSpec, assignments
from workers.assignments import keep_assignments
from workers.process import child_environment
from workers.training import train

ATSS = {"topk": 9}
IOU = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0.0, "ignore_iof_thr": 0.5}
SIZES = [64, 16]
Answer = tuple[int, Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing kept yet, and nothing after the test."""
    monkeypatch.setattr(assignments, "_kept", type(assignments._kept)())
    monkeypatch.setattr(assignments, "_bytes", 0)


class Detector(nn.Module):
    """A dense head, and a box head on proposals, with assigners that count their questions."""

    def __init__(self, kind: type, settings: dict[str, Any]) -> None:
        super().__init__()
        self.kind, self.questions = kind, 0
        self.bbox_head, self.roi_head = self._head(kind, settings), self._head(kind, settings)

    def _head(self, kind: type, settings: dict[str, Any]) -> Any:
        assigner = kind(**settings)
        asked = assigner.assign

        def assign(*given: Any) -> Any:
            self.questions += 1
            return asked(*given)

        assigner.assign = assign
        head = nn.Module()
        head.assigner = assigner
        head.train_cfg = {"assigner": settings}
        return head

    def ask(self, problem: SimpleNamespace, head: str = "bbox_head") -> Answer:
        """As mmdet's heads do."""
        sizes = [SIZES] if self.kind is ATSSAssigner else []
        found = getattr(self, head).assigner.assign(
            InstanceData(priors=problem.anchors), *sizes, problem.truth, problem.crowds
        )
        return found.num_gts, found.gt_inds, found.max_overlaps, found.labels


def boxes(rng: torch.Generator, count: int) -> Tensor:
    """(count, 4) xyxy pixels."""
    corner = torch.rand(count, 2, generator=rng) * 40
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=rng) * 24], 1)


def problem(seed: int, objects: int = 5, crowds: int = 0) -> SimpleNamespace:
    rng = torch.Generator().manual_seed(seed)
    truth = InstanceData(
        bboxes=boxes(rng, objects), labels=torch.randint(3, (objects,), generator=rng)
    )
    ignored = InstanceData(bboxes=boxes(rng, crowds)) if crowds else None
    return SimpleNamespace(anchors=boxes(rng, sum(SIZES)), truth=truth, crowds=ignored)


def equal(one: Answer, other: Answer) -> bool:
    return one[0] == other[0] and all(map(torch.equal, one[1:], other[1:]))


KINDS = pytest.mark.parametrize(
    ("kind", "settings"), [(ATSSAssigner, ATSS), (MaxIoUAssigner, IOU)], ids=["atss", "max-iou"]
)


@KINDS
def test_answers_are_the_assigners_own(kind: type, settings: dict[str, Any]) -> None:
    """The problems differ in boxes, anchors, labels, crowds, or in one number alone."""
    problems = [problem(seed, objects) for seed in range(4) for objects in (0, 1, 5)]
    problems += [problem(seed, 5, crowds=2) for seed in range(4)]
    for change in ("anchors", "bboxes", "labels"):
        other = problem(0)
        tensor = other.anchors if change == "anchors" else getattr(other.truth, change)
        tensor[0] = tensor[0] + 1
        problems.append(other)
    bare, keeping = Detector(kind, settings), Detector(kind, settings)
    keep_assignments(keeping)
    for turn in range(2):
        for number, each in enumerate(problems):
            assert equal(keeping.ask(each), bare.ask(each)), (turn, number)
    assert keeping.questions == len(problems)
    assert bare.questions == 2 * len(problems)


def test_other_settings_are_another_question() -> None:
    strict = {**IOU, "pos_iou_thr": 0.9}
    answers = []
    for settings in (IOU, strict):
        detector = Detector(MaxIoUAssigner, settings)
        keep_assignments(detector)
        answers.append(detector.ask(problem(0, 8)))
        assert detector.questions == 1
    assert not equal(*answers)


def test_an_answer_that_is_added_to_is_not_the_one_kept() -> None:
    """As samplers do that take the ground truth for proposals too."""
    detector = Detector(MaxIoUAssigner, IOU)
    keep_assignments(detector)
    each = problem(0)
    first = detector.bbox_head.assigner.assign(
        InstanceData(priors=each.anchors), each.truth, each.crowds
    )
    first.add_gt_(each.truth.labels)
    assert len(detector.ask(each)[1]) == len(each.anchors) < len(first.gt_inds)


def test_assignments_of_proposals_and_of_predictions_are_not_kept() -> None:
    proposals = Detector(MaxIoUAssigner, IOU)
    keep_assignments(proposals)
    dynamic = Detector(ATSSAssigner, {**ATSS, "alpha": 0.8})
    asked = dynamic.bbox_head.assigner.assign
    keep_assignments(dynamic)
    for _ in range(2):
        proposals.ask(problem(0), "roi_head")
    assert proposals.questions == 2
    assert dynamic.bbox_head.assigner.assign is asked


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers that were longest not asked for go; large images are not kept at all."""
    size = sum(SIZES) * (8 + 4 + 8)
    monkeypatch.setattr(assignments, "_MOST_BYTES", 3 * size)
    detector = Detector(MaxIoUAssigner, IOU)
    keep_assignments(detector)
    for seed in (0, 1, 2, 0, 3):
        detector.ask(problem(seed))
    assert detector.questions == 4
    assert assignments._bytes == 3 * size
    detector.ask(problem(0))
    assert detector.questions == 4
    detector.ask(problem(1))
    assert detector.questions == 5
    monkeypatch.setattr(assignments, "_MOST_ANCHORS", sum(SIZES) - 1)
    detector.ask(problem(0))
    assert detector.questions == 6


@pytest.mark.parametrize("name", ["atss", "faster"])
def test_trials_ask_once(name: str, make_spec: Callable[..., TrialSpec]) -> None:
    """Two epochs of a data set see the same images; a second trial of the seed asks nothing new."""
    first = train(make_spec(name, steps=3, precision="float32"))
    asked = len(assignments._kept)
    again = train(make_spec(name, steps=3, precision="float32"))
    assert first.status == again.status == "done"
    assert (again.fitness, again.curves) == (first.fitness, first.curves)
    assert len(assignments._kept) == asked > 0


def test_a_trial_wants_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert child_environment(1, "cpu")["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    assert child_environment(1, "cpu")["GLIBC_TUNABLES"] == "glibc.malloc.check=3"
