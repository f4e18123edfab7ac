"""Which anchor belongs to which box is worked out once a process, not at every step.

mmdet's assigners of dense heads look at anchors and ground truth alone: the same image, flipped the
same way, gives the same answer in every epoch and every trial. On small images the question costs
as much as a tenth of a step.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

from mmdet.models.task_modules.assigners import AssignResult, ATSSAssigner, MaxIoUAssigner
from torch import Tensor, nn

_MOST_BYTES = 64 * 2**20  # that a process keeps
_MOST_ANCHORS = 5000  # of an image; more come with more images than would be met again
_Parts = tuple[int, Tensor, Tensor, Tensor]
_kept: OrderedDict[bytes, _Parts] = OrderedDict()
_bytes = 0


def keep_assignments(model: nn.Module) -> None:
    """Has the dense heads of a detector ask their assigner only what it was not asked before.

    The answers are the assigner's own, bit for bit. Those of a box head on proposals, which are new
    at every step, and those that depend on predictions are not kept.

    Args:
        model: of mmdet; its assigners' `assign` is wrapped.
    """
    for name in ("bbox_head", "rpn_head"):
        head = getattr(model, name, None)
        assigner = getattr(head, "assigner", None)
        if head is not None and _looks_at_anchors_alone(assigner):
            head.assigner.assign = _Kept(assigner, repr(head.train_cfg["assigner"]))


def _looks_at_anchors_alone(assigner: Any) -> bool:
    if type(assigner) is ATSSAssigner:
        return assigner.alpha is None
    # permuting repeated boxes draws random numbers
    return type(assigner) is MaxIoUAssigner and assigner.perm_repeat_gt_cfg is None


class _Kept:
    """An assigner's `assign` with a memory."""

    def __init__(self, assigner: Any, settings: str) -> None:
        self._assign = assigner.assign
        self._settings = settings
        self._arity = 4 if isinstance(assigner, ATSSAssigner) else 3

    def __call__(self, *given: Any, **named: Any) -> AssignResult:
        """As `AnchorHead` and `ATSSHead` call it: anchors, for ATSS the sizes of its levels, boxes,
        crowds. Whoever calls it otherwise is answered without memory."""
        if named or len(given) != self._arity or not _is_plain(given[0], given[-2]):
            return self._assign(*given, **named)
        predictions, *sizes, truth, ignored = given
        anchors = predictions.priors
        key = self._key(anchors, sizes, truth, ignored)
        parts = _kept.get(key)
        if parts is None:
            found = self._assign(*given)
            parts = (found.num_gts, found.gt_inds, found.max_overlaps, found.labels)
            _keep(key, parts)
        else:
            _kept.move_to_end(key)
        return AssignResult(*parts)

    def _key(self, anchors: Tensor, sizes: list[Any], truth: Any, ignored: Any) -> bytes:
        crowds = None if ignored is None else ignored.bboxes
        digest = hashlib.blake2b(f"{self._settings} {sizes} {len(truth)}".encode(), digest_size=20)
        for tensor in (anchors, truth.bboxes, truth.labels, crowds):
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().data)
        return digest.digest()


def _is_plain(predictions: Any, truth: Any) -> bool:
    """Whether anchors and boxes are tensors on the CPU, and few enough to be met again."""
    tensors = (predictions.get("priors"), truth.get("bboxes"), truth.get("labels"))
    if not all(type(each) is Tensor and not each.is_cuda for each in tensors):
        return False
    return len(tensors[0]) <= _MOST_ANCHORS


def _keep(key: bytes, parts: _Parts) -> None:
    """Remembers an answer, and forgets the ones that were longest not asked for."""
    global _bytes
    _kept[key] = parts
    _bytes += _size(parts)
    while _bytes > _MOST_BYTES:
        _bytes -= _size(_kept.popitem(last=False)[1])


def _size(parts: _Parts) -> int:
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))
