"""The searched functions of Parameterized AP Loss, by their control points.

Five functions from [0, 1] to [0, 1], each linear between control points from (0, 0) to (1, 1).
Parameterized AP Loss (arXiv 2112.05138), as released.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from losses.errors import DefinitionError

# order of the rows of control points and of the parameters of a search
FUNCTIONS = ("H2", "I2", "I3", "I1", "H1")
MAX_CONTROL_POINTS = 16

Point = tuple[float, float]


@dataclass(frozen=True)
class PapFunctions:
    """The five functions, each by its inner control points.

    Attributes:
        points: for each name in ``FUNCTIONS`` its inner control points ``(x, y)``, 1 to 16 of
            them and as many for each function, neither x nor y falling, all in [0, 1]. (0, 0)
            before them and (1, 1) after them are implied.
    """

    points: Mapping[str, tuple[Point, ...]]

    def __post_init__(self) -> None:
        if not isinstance(self.points, Mapping):
            raise DefinitionError(
                f"must be an object with {', '.join(FUNCTIONS)}, got {self.points!r}", "functions"
            )
        missing = [name for name in FUNCTIONS if name not in self.points]
        if missing:
            raise DefinitionError("is missing", f"functions.{missing[0]}")
        unknown = sorted(str(name) for name in self.points if name not in FUNCTIONS)
        if unknown:
            raise DefinitionError(
                f"unknown function; there are {', '.join(FUNCTIONS)}", f"functions.{unknown[0]}"
            )
        checked = {name: _checked_points(name, self.points[name]) for name in FUNCTIONS}
        count = len(checked[FUNCTIONS[0]])
        for name in FUNCTIONS:
            if len(checked[name]) != count:
                raise DefinitionError(
                    f"has {len(checked[name])} points where {FUNCTIONS[0]} has {count};"
                    " all functions have the same number",
                    f"functions.{name}",
                )
        object.__setattr__(self, "points", MappingProxyType(checked))

    def __hash__(self) -> int:
        return hash(tuple(self.points[name] for name in FUNCTIONS))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self.points),)

    @property
    def count(self) -> int:
        """How many inner control points each function has."""
        return len(self.points[FUNCTIONS[0]])

    @classmethod
    def identity(cls, points: int = 4) -> "PapFunctions":
        """Every function is the identity, by `points` evenly spaced control points."""
        _check_count(points)
        line = tuple((k / (points + 1), k / (points + 1)) for k in range(1, points + 1))
        return cls(dict.fromkeys(FUNCTIONS, line))

    @classmethod
    def from_theta(cls, theta: Iterable[float], points: int = 4) -> "PapFunctions":
        """The functions that the parameters of a search stand for.

        Each coordinate goes on from the point before it by a share of what is left to 1:
        ``p_k = p_(k-1) + theta_k * (1 - p_(k-1))``; so any parameters give rising functions.

        Args:
            theta: ``len(FUNCTIONS) * 2 * points`` numbers in [0, 1]: the functions in the order of
                ``FUNCTIONS``, ``x_1, y_1, x_2, y_2, ...`` of each.
            points: inner control points of each function, 1 to 16.

        Raises:
            DefinitionError: too many or too few numbers, or one outside [0, 1].
        """
        _check_count(points)
        numbers = [float(value) for value in theta]
        size = 2 * points
        if len(numbers) != size * len(FUNCTIONS):
            raise DefinitionError(
                f"{len(FUNCTIONS)} functions of {points} points have"
                f" {size * len(FUNCTIONS)} parameters, got {len(numbers)}",
                "theta",
            )
        for position, value in enumerate(numbers):
            if not 0.0 <= value <= 1.0:
                raise DefinitionError(f"must be in [0, 1], got {value!r}", f"theta.{position}")
        functions: dict[str, tuple[Point, ...]] = {}
        for index, name in enumerate(FUNCTIONS):
            own = numbers[index * size : (index + 1) * size]
            functions[name] = tuple(zip(_rising(own[0::2]), _rising(own[1::2]), strict=True))
        return cls(functions)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PapFunctions":
        """The functions that ``to_json`` gave, or that a person wrote.

        Raises:
            DefinitionError: a function or coordinate is missing, unknown, out of [0, 1] or falling.
        """
        return cls(data)

    def to_json(self) -> dict[str, list[list[float]]]:
        """Inner control points by name of function, as plain JSON."""
        return {name: [list(point) for point in self.points[name]] for name in FUNCTIONS}

    def rows(self) -> tuple[tuple[float, ...], ...]:
        """The control points that `pap_loss` takes: 5 rows ``x_0, y_0, x_1, ...``, ends included.

        Each row has ``2 * (count + 2)`` numbers.
        """
        return tuple(
            (0.0, 0.0, *(value for point in self.points[name] for value in point), 1.0, 1.0)
            for name in FUNCTIONS
        )


def identity_theta(points: int = 4) -> tuple[float, ...]:
    """The parameters whose functions are the identity: 1/(n+1) twice, 1/n twice, ..., 1/2."""
    _check_count(points)
    own = tuple(1.0 / (points + 2 - k) for k in range(1, points + 1) for _ in "xy")
    return own * len(FUNCTIONS)


def gradient_scale(theta: float) -> float:
    """Factor on the gradient of the boxes that a parameter in [0, 1] stands for: 0.1 to 10."""
    return float(10.0 ** (2.0 * theta - 1.0))


def _rising(shares: Sequence[float]) -> list[float]:
    values: list[float] = []
    last = 0.0
    for share in shares:
        # the products' rounding can exceed 1 by one unit
        last = min(last + share * (1.0 - last), 1.0)
        values.append(last)
    return values


def _check_count(points: int) -> None:
    if isinstance(points, bool) or not isinstance(points, int):
        raise DefinitionError(f"must be an integer, got {points!r}", "points")
    if not 1 <= points <= MAX_CONTROL_POINTS:
        raise DefinitionError(f"must be 1 to {MAX_CONTROL_POINTS}, got {points}", "points")


def _checked_points(name: str, points: Any) -> tuple[Point, ...]:
    field = f"functions.{name}"
    if isinstance(points, str) or not isinstance(points, Sequence):
        raise DefinitionError(f"must be a list of points [x, y], got {points!r}", field)
    if not 1 <= len(points) <= MAX_CONTROL_POINTS:
        raise DefinitionError(
            f"must have 1 to {MAX_CONTROL_POINTS} points, got {len(points)}", field
        )
    checked: list[Point] = []
    for position, point in enumerate(points):
        place = f"{field}.{position}"
        if isinstance(point, str) or not isinstance(point, Sequence) or len(point) != 2:
            raise DefinitionError(f"must be a point [x, y], got {point!r}", place)
        for value in point:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise DefinitionError(f"must be two numbers, got {point!r}", place)
            if not 0.0 <= value <= 1.0:
                raise DefinitionError(f"must be in [0, 1], got {point!r}", place)
        x, y = float(point[0]), float(point[1])
        if checked and (x < checked[-1][0] or y < checked[-1][1]):
            raise DefinitionError(f"must not fall: {[x, y]} comes after {list(checked[-1])}", place)
        checked.append((x, y))
    return tuple(checked)
