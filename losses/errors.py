"""The errors of this package: one base class and what can go wrong with a loss in a detector."""

from collections.abc import Sequence
from typing import Any


def rebuild_losses_error(
    cls: type["LossesError"], message: str, fields: dict[str, Any]
) -> "LossesError":
    """Unpickle an error with its fields: errors cross process borders."""
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(fields)
    return error


class LossesError(Exception):
    """Base of every error that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_losses_error, (type(self), str(self), self.__dict__)


class DefinitionError(LossesError, ValueError):
    """A loss definition is malformed, or does not fit the detector it is put into.

    Attributes:
        field: dotted path of the offending field, such as ``cls.expression``; empty if none.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class UnsupportedHeadError(LossesError):
    """The detector has a head whose losses cannot be replaced.

    Attributes:
        head: class name of the head (or detector) that was found.
        supported: names of the heads that can be used.
    """

    def __init__(self, head: str, supported: Sequence[str], reason: str = "") -> None:
        self.head = head
        self.supported = tuple(supported)
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"losses cannot be put into head {head!r}{why}; supported: {', '.join(supported)}"
        )


class MissingOpError(LossesError, RuntimeError):
    """A detector called a compiled mmcv op that the stand-in does not have.

    Attributes:
        op: name of the op in ``mmcv._ext``.
    """

    def __init__(self, op: str) -> None:
        self.op = op
        super().__init__(
            f"mmcv op {op!r} needs compiled mmcv, and this environment has mmcv-lite. Replace it:"
            " `pip uninstall mmcv-lite`, then `pip install mmcv==2.1.0 --no-build-isolation`"
            " (compiles for several minutes; prebuilt wheels for older torch versions are found"
            " with `mim install mmcv==2.1.0`)"
        )
