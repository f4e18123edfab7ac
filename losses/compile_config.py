"""Has the expression losses of a detector's config compiled."""

from collections.abc import MutableMapping
from typing import Any

from losses.families import type_name

EXPRESSION_LOSSES = ("SoftmaxExpressionLoss", "SigmoidExpressionLoss", "BoxExpressionLoss")


def compile_expressions(part: Any) -> int:
    """Sets ``compile`` in every expression loss of a config, in place; returns how many there are.

    Args:
        part: a config, or a part of one: mappings and lists.
    """
    if isinstance(part, list | tuple):
        return sum(map(compile_expressions, part))
    if not isinstance(part, MutableMapping):
        return 0
    if type_name(part.get("type")) in EXPRESSION_LOSSES:
        part["compile"] = True
        return 1
    return sum(map(compile_expressions, part.values()))
