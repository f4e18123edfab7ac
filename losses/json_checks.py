"""What a loss definition's JSON is asked: its fields, its numbers and its weights."""

import math
from collections.abc import Mapping
from typing import Any

from losses.errors import DefinitionError

_LARGEST = 2**31 - 1

# of what multiplies a loss or a learning rate: far beyond them it is a slip, not a wish
SMALLEST_FACTOR = 1e-3
LARGEST_FACTOR = 1e3


def check_fields(
    data: Mapping[str, Any], where: str, required: set[str], optional: set[str]
) -> None:
    """Whether JSON data is an object with these fields.

    Raises:
        DefinitionError: it is not.
    """
    if not isinstance(data, Mapping):
        raise DefinitionError(f"must be an object, got {type(data).__name__}", where)
    dot = f"{where}." if where else ""
    for name in sorted(required - set(data)):
        raise DefinitionError("is missing", dot + name)
    for name in sorted(map(str, set(data) - required - optional)):
        allowed = ", ".join(sorted(required | optional))
        raise DefinitionError(f"is unknown; allowed are {allowed}", dot + name)


def optional_number(value: Any, where: str) -> float | None:
    """A finite number or None.

    Raises:
        DefinitionError: it is neither.
    """
    if value is None:
        return None
    if not isinstance(value, bool) and isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:  # a whole number above every float
            number = math.inf
        if math.isfinite(number):
            return number
    raise DefinitionError(f"must be a finite number or null, got {value!r:.80}", where)


def optional_weight(value: Any, where: str) -> float | None:
    """A finite number that is not negative, or None.

    Raises:
        DefinitionError: it is neither.
    """
    weight = optional_number(value, where)
    if weight is not None and weight < 0:
        raise DefinitionError(f"must not be negative, got {weight}", where)
    return weight


def positive_number(value: Any, where: str) -> float:
    """A finite number above 0.

    Raises:
        DefinitionError: it is none.
    """
    number = optional_number(value, where)
    if number is None or number <= 0:
        raise DefinitionError(f"must be a number above 0, got {value!r:.80}", where)
    return number


def factor_number(value: Any, where: str) -> float:
    """A factor from `SMALLEST_FACTOR` to `LARGEST_FACTOR`.

    Raises:
        DefinitionError: it is none.
    """
    number = positive_number(value, where)
    if not SMALLEST_FACTOR <= number <= LARGEST_FACTOR:
        raise DefinitionError(
            f"must be from {SMALLEST_FACTOR:g} to {LARGEST_FACTOR:g}, got {number:g}", where
        )
    return number


def positive_integer(value: Any, where: str) -> int:
    """A whole number from 1 that a computer's word holds.

    Raises:
        DefinitionError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise DefinitionError(
            f"must be a whole number from 1 to {_LARGEST}, got {value!r:.80}", where
        )
    return value


def true_or_false(value: Any, where: str) -> bool:
    """A boolean.

    Raises:
        DefinitionError: it is none.
    """
    if not isinstance(value, bool):
        raise DefinitionError(f"must be true or false, got {value!r}", where)
    return value


def one_of(value: Any, allowed: tuple[str, ...], where: str) -> str:
    """One of some words.

    Raises:
        DefinitionError: it is none of them.
    """
    if not isinstance(value, str) or value not in allowed:
        raise DefinitionError(f"must be one of {', '.join(allowed)}, got {value!r}", where)
    return value
