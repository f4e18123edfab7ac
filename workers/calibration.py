"""What the losses of a detector are given at its initial weights, and how strong its own ones are.

A loss's size acts as a learning rate, so losses are compared at equal gradients: this module runs a
detector on a few batches and records what the size of any other loss's gradient follows from. The
head's outputs are the variables, so no gradient goes through the network, and what a candidate
costs later is the loss alone.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workers.config import build_config  # isort: skip  - before anything of mmdet

import numpy as np
import torch
from mmengine.runner import set_random_seed
from torch import Tensor, nn

from losses import CATALOG, BoxExpressionLoss, LossDefinition, SoftmaxExpressionLoss
from workers.calls import BranchCalls
from workers.errors import WorkersError
from workers.folders import WorkFolder
from workers.isolation import isolated
from workers.spec import TrialSpec
from workers.training import private_config
from workers.trial_runner import TrialRunner
from workers.warm_start import provide_weights

Arrays = dict[str, np.ndarray]

# By the role of a branch: a loss that reads all inputs of its space, so that the head provides them
_PROBES = {
    "multi_cls": CATALOG["cse-autoloss-a"].cls,
    "binary_cls": CATALOG["qfl-giou"].cls,
    "box": CATALOG["iou-expression"].bbox,
}
_MOST_ELEMENTS = 1 << 18  # of one call's logits; of more, background rows are drawn


def capture(spec: TrialSpec, roles: Mapping[str, str], batches: int) -> dict[str, BranchCalls]:
    """Runs a detector on its first training batches, without a step, and records its losses.

    Weights, batches and augmentation follow from the spec's seed, as a trial's do (with a warm
    start, from its weights); the arithmetic is float32 whatever the spec's precision, since no
    hooks run. The process's global state is as before.

    Args:
        spec: a trial of the losses that are to be matched.
        roles: branches to record, ``cls`` or ``bbox``, each with its role: ``multi_cls``,
            ``binary_cls`` or ``box``.
        batches: how many, at least 1; fewer where the sampler ends.

    Raises:
        WorkersError: the device is missing, or the split has no batch.
        losses.LossesError: the losses do not fit the detector.
    """
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise WorkersError("device is 'cuda', but torch finds no GPU")
    own = LossDefinition.from_json(spec.definition)
    probes = own
    for branch, role in roles.items():
        probes = probes.with_branch(branch, _PROBES[role])
    probing = replace(spec, definition=probes.to_json())
    with WorkFolder() as folder, isolated(spec.threads, spec.device):
        if spec.warm_start is not None:
            provide_weights(spec)
        squares = dict.fromkeys(roles, 0.0)
        for calls, outputs in _batches(spec, roles, batches, folder.path / "own"):
            for branch in roles:
                squares[branch] += _square(calls[branch], outputs)
        recorded: dict[str, list[Arrays]] = {branch: [] for branch in roles}
        for calls, outputs in _batches(probing, roles, batches, folder.path / "probes"):
            for branch in roles:
                recorded[branch] += [_arrays(call, outputs) for call in calls[branch]]
    return {
        branch: BranchCalls(squares[branch] ** 0.5, tuple(recorded[branch])) for branch in roles
    }


@dataclass
class _Call:
    """One call of a loss module: what it was given and gave, and what became of it.

    Attributes:
        factor: derivative of the total loss by each value.
    """

    module: nn.Module
    given: dict[str, Any]
    ious: Tensor | None
    values: list[Tensor]
    factor: list[Tensor] = field(default_factory=list)


def _batches(
    spec: TrialSpec, roles: Mapping[str, str], batches: int, folder: Path
) -> Iterator[tuple[dict[str, list[_Call]], list[Tensor]]]:
    """By batch: the calls of every branch, and the outputs of the heads."""
    config = private_config(build_config(spec), folder)
    runner = TrialRunner.from_cfg(config)
    loader = runner.build_dataloader(config.train_dataloader, seed=spec.seed)
    runner._init_model_weights()
    runner.load_or_resume()
    model = runner.model.train().requires_grad_(False)
    number = 0
    with _watched(_heads(model), roles) as (calls, outputs):
        data = iter(loader)
        for number in itertools.count():
            set_random_seed((spec.seed + number) % 2**32)
            given = next(data, None) if number < batches else None
            if given is None:
                break
            losses = model(**model.data_preprocessor(given, True), mode="loss")
            total, _ = model.parse_losses(losses)
            for listed in calls.values():
                if not listed:
                    continue
                values = [value for call in listed for value in call.values]
                factors = iter(torch.autograd.grad(total, values, retain_graph=True))
                for call in listed:
                    call.factor = list(itertools.islice(factors, len(call.values)))
            yield calls, outputs
            for listed in calls.values():
                listed.clear()
            outputs.clear()
    if number == 0:
        raise WorkersError("the training split has no batch to calibrate on")


def _heads(model: nn.Module) -> Sequence[nn.Module]:
    """The heads whose losses a definition replaces: one, or one a stage of a cascade."""
    owner: Any = model.roi_head if hasattr(model, "roi_head") else model
    head = owner.bbox_head
    return list(head) if isinstance(head, nn.ModuleList) else [head]


@contextmanager
def _watched(
    heads: Sequence[nn.Module], roles: Mapping[str, str]
) -> Iterator[tuple[dict[str, list[_Call]], list[Tensor]]]:
    """Makes the heads' outputs variables, and notes them and every call of their losses."""
    calls: dict[str, list[_Call]] = {branch: [] for branch in roles}
    outputs: list[Tensor] = []

    def variable(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            leaf = value.detach().requires_grad_()
            outputs.append(leaf)
            return leaf.clone()  # mmdet may write into it
        if isinstance(value, list | tuple):
            return type(value)(variable(each) for each in value)
        return value

    def note(branch: str) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict, value: Any) -> None:
            given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            values = list(value.values()) if isinstance(value, dict) else [value]
            ious = getattr(module, "lent_ious", None)
            calls[branch].append(
                _Call(module, given, ious, [each for each in values if each.requires_grad])
            )

        return hook

    handles = [
        head.register_forward_hook(lambda module, given, value: variable(value)) for head in heads
    ]
    for branch, head in itertools.product(roles, heads):
        module = getattr(head, f"loss_{branch}")
        handles.append(module.register_forward_hook(note(branch), with_kwargs=True))
    try:
        yield calls, outputs
    finally:
        for handle in handles:
            handle.remove()


def _square(calls: Sequence[_Call], outputs: Sequence[Tensor]) -> float:
    """Sum of the squares of a branch's gradient by the outputs, in one batch."""
    pairs = [pair for call in calls for pair in zip(call.values, call.factor, strict=True)]
    if not pairs:
        return 0.0
    values, factors = zip(*pairs, strict=True)
    gradients = torch.autograd.grad(values, outputs, factors, retain_graph=True, allow_unused=True)
    return sum(float(each.double().square().sum()) for each in gradients if each is not None)


def _arrays(call: _Call, outputs: Sequence[Tensor]) -> Arrays:
    """What a call of a probe was given, as arrays."""
    given = call.given
    weight = given.get("weight")
    found: dict[str, Tensor] = {}
    if isinstance(call.module, BoxExpressionLoss):
        pred = given["pred"]
        rows = torch.ones(len(pred), dtype=torch.bool, device=pred.device)
        if weight is not None:
            rows = weight.reshape(len(pred), -1).ne(0).any(dim=1)
        divisor = len(pred)
        found["pred"], found["target"] = pred[rows], given["target"][rows]
        found["metric"] = _metric(found["pred"], outputs)
    else:
        scores, labels = given["cls_score"], given["label"]
        soft = isinstance(call.module, SoftmaxExpressionLoss)
        divisor = len(scores) if soft else scores.numel()
        positive = (labels >= 0) & (labels < scores.size(1) - soft)
        rows, counts = _drawn(positive, scores.size(1))
        found["scores"], found["labels"], found["counts"] = scores[rows], labels[rows], counts
        if call.ious is not None:
            found["ious"] = call.ious  # every positive is among the rows
    if weight is not None:
        found["weights"] = weight[rows]
    average = given.get("avg_factor")
    found["divisor"] = torch.as_tensor(float(divisor if average is None else average))
    found["factor"] = call.factor[0]
    return {name: value.detach().cpu().numpy() for name, value in found.items()}


def _drawn(positive: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Rows to keep: all, or all positives and as many others as there is room for.

    Returns:
        (N,) whether a row is kept, and for each kept one the number of rows that it stands for.
    """
    others = torch.nonzero(~positive).flatten().cpu()
    room = max(_MOST_ELEMENTS // columns - int(positive.sum()), 1)
    if len(others) <= room:
        return torch.ones_like(positive), torch.ones(len(positive))
    generator = torch.Generator().manual_seed(len(others))
    chosen = others[torch.randperm(len(others), generator=generator)[:room]]
    kept = positive.clone()
    kept[chosen.to(kept.device)] = True
    counts = torch.where(positive[kept].cpu(), 1.0, len(others) / room)
    return kept, counts


def _metric(pred: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """``J J^T`` of every box's derivative by the outputs that it was decoded from.

    Each output belongs to one box at most. Which one, its derivatives tell: those of the sum of all
    boxes, and those of the sum in which box ``i`` counts ``i`` times.

    Args:
        pred: (N, 4), computed from ``outputs``.

    Returns:
        (N, 4, 4), float64.
    """
    number = len(pred)
    metric = pred.new_zeros((number, 4, 4), dtype=torch.float64)
    if not number:
        return metric
    position = torch.arange(1, number + 1, device=pred.device, dtype=pred.dtype)
    plain, counted = (
        [_gradient((pred[:, side] * times).sum(), outputs) for side in range(4)]
        for times in (torch.ones_like(position), position)
    )
    columns, numbered = torch.stack(plain), torch.stack(counted)  # (4, all outputs)
    largest = columns.abs().argmax(dim=0, keepdim=True)
    most = columns.gather(0, largest)[0]
    used = most != 0
    owner = (numbered.gather(0, largest)[0][used] / most[used]).round().long() - 1
    used_columns = columns[:, used].T.double()
    products = used_columns.unsqueeze(2) * used_columns.unsqueeze(1)
    return metric.index_add_(0, owner, products)


def _gradient(value: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """The derivatives of a number by all outputs, flat."""
    found = torch.autograd.grad(value, outputs, retain_graph=True, allow_unused=True)
    pairs = zip(found, outputs, strict=True)
    return torch.cat(
        [(torch.zeros_like(out) if each is None else each).flatten() for each, out in pairs]
    )
