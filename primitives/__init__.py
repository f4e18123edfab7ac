"""The language losses are written in: operators, search spaces, expressions and their uses.

Nothing here knows detection. `import primitives` needs NumPy alone; torch is imported by the first
`to_torch`.
"""

from primitives.canonical import canonical
from primitives.errors import (
    ExpressionLimitError,
    ExpressionSyntaxError,
    ExpressionTypeError,
    InputError,
    PrimitivesError,
    SpaceError,
)
from primitives.expression import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, Expression, Node
from primitives.gradient import Gradient
from primitives.growth import grow
from primitives.latex import to_latex
from primitives.numpy_eval import Evaluator, evaluate
from primitives.operators import OPERATORS, Kind, Operator
from primitives.parser import parse
from primitives.spaces import SPACES, Input, SearchSpace
from primitives.torch_eval import to_torch
from primitives.variation import (
    crossover,
    hoist,
    insert_constant,
    mutate_constants,
    mutate_point,
    mutate_subtree,
)

__all__ = [
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "MAX_NODES",
    "OPERATORS",
    "SPACES",
    "Evaluator",
    "Expression",
    "ExpressionLimitError",
    "ExpressionSyntaxError",
    "ExpressionTypeError",
    "Gradient",
    "Input",
    "InputError",
    "Kind",
    "Node",
    "Operator",
    "PrimitivesError",
    "SearchSpace",
    "SpaceError",
    "canonical",
    "crossover",
    "evaluate",
    "grow",
    "hoist",
    "insert_constant",
    "mutate_constants",
    "mutate_point",
    "mutate_subtree",
    "parse",
    "to_latex",
    "to_torch",
]
