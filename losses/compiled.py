"""torch.compile for the functions of expressions; where it cannot be had they run as they are."""

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor


def cpp_compiler_problem() -> str | None:
    """Why torch.compile cannot work here, in words; None when it probably can.

    On the CPU it writes C++ and needs a compiler: ``$CXX``, else g++ (clang++ on macOS).
    """
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        return f"torch.compile needs a C++ compiler, and there is no {name}; $CXX can name one"
    return None


class CompiledFunction:
    """A function over named tensors, compiled when it is first called.

    Where it cannot be compiled it warns once, with the reason, and computes uncompiled from then
    on. Numbers of rows may change from call to call; the first calls take seconds.

    Args:
        function: takes tensors by name; a plain Python function.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._plain = function
        self._compiled: Callable[..., Tensor] | None = None
        self._gave_up = False

    def __call__(self, **tensors: Tensor) -> Tensor:
        """
        Raises:
            Exception: what the function itself raises.
        """
        if self._gave_up:
            return self._plain(**tensors)
        try:
            problem = None if self._compiled else cpp_compiler_problem()
            if problem is not None:
                raise RuntimeError(problem)
            if self._compiled is None:
                self._compiled = torch.compile(_with_own_code(self._plain), dynamic=True)
            return self._compiled(**tensors)
        except Exception as error:
            found = self._plain(**tensors)  # raises it again when the tensors are to blame
            self._gave_up, self._compiled = True, None
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"the loss runs uncompiled: {reason}", RuntimeWarning, stacklevel=2)
            return found


def _with_own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy with a code object of its own: torch keeps only some variants of each.

    The functions of all expressions are closures of one code.
    """
    given = cast(FunctionType, function)
    copied = FunctionType(
        given.__code__.replace(),
        given.__globals__,
        given.__name__,
        given.__defaults__,
        given.__closure__,
    )
    copied.__kwdefaults__ = given.__kwdefaults__
    return copied
