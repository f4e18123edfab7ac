"""Errors of the expression language: one base class, children that carry what went wrong."""

from __future__ import annotations

from typing import Any


def rebuild_primitives_error(
    cls: type[PrimitivesError], message: str, fields: dict[str, Any]
) -> PrimitivesError:
    """Unpickle an error with its fields (errors cross process borders in trials)."""
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(fields)
    return error


class PrimitivesError(ValueError):
    """Base class of everything this package raises on bad input."""

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_primitives_error, (type(self), str(self), self.__dict__)


class ExpressionSyntaxError(PrimitivesError):
    """The text is no expression of the space.

    Attributes:
        position: 0-based offset into the text.
        token: what stands there ("end of text" at the end).
        expected: what could have stood there.
    """

    def __init__(self, position: int, token: str, expected: str, detail: str = "") -> None:
        self.position = position
        self.token = token
        self.expected = expected
        lead = detail or f"unexpected {token}"
        super().__init__(f"{lead} at position {position}: expected {expected}")


class ExpressionTypeError(PrimitivesError):
    """Kinds do not fit: per row mixed with per class, or a root of the wrong kind.

    Attributes:
        position: 0-based offset into the text, or None where there is no text.
    """

    def __init__(self, reason: str, position: int | None = None) -> None:
        self.reason = reason
        self.position = position
        super().__init__(reason if position is None else f"{reason}, at position {position}")


class ExpressionLimitError(PrimitivesError):
    """The expression is longer, deeper or larger than the language allows.

    Attributes:
        limit: "characters", "depth" or "nodes".
        allowed: the largest value allowed.
        position: 0-based offset at which the limit was passed, or None.
    """

    def __init__(self, limit: str, allowed: int, position: int | None = None) -> None:
        self.limit = limit
        self.allowed = allowed
        self.position = position
        where = "" if position is None else f", passed at position {position}"
        super().__init__(f"expression too large: at most {allowed} {limit} are allowed{where}")


class SpaceError(PrimitivesError):
    """A search space is unknown or not well defined.

    Attributes:
        field: the field of the space's definition, e.g. "operators".
        value: what was given.
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field = field
        self.value = value
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"search space, {field}: {shown}: {reason}")


class InputError(PrimitivesError):
    """Values handed to an expression are missing or have shapes that do not fit.

    Attributes:
        name: the input concerned.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        super().__init__(f"input {name}: {reason}")
