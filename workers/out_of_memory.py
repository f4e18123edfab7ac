"""Whether a training ended for want of memory, as its exception tells."""

from __future__ import annotations

from collections.abc import Iterator

import torch

# What torch and its libraries say where they have no exception of their own for it.
_WORDS = (
    "out of memory",
    "can't allocate memory",  # torch's allocator on the CPU
    "cannot allocate memory",
    "unable to mmap",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def ran_out(error: BaseException) -> bool:
    """Whether an exception, or what it was raised from, says that memory did not suffice.

    On a GPU and on the CPU alike. What torch has no exception of its own for is a RuntimeError with
    one of some known phrases.
    """
    return any(_says_so(each) for each in _chain(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).casefold()
    return isinstance(error, RuntimeError) and any(words.casefold() in text for words in _WORDS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those behind it, each once."""
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__ or now.__context__
