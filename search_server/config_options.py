"""`--cfg-options`: single values of a config, changed from the command line as in mmdet's tools."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from search_server.errors import JobError

# what `train` itself decides, and how to tell it
_OWN = {
    "work_dir": "use --work-dir",
    "launcher": "use --gpus or --cpu-processes",
    "experiment_name": "it names a single run",
    "log_level": "use LOSSFORGE_DEBUG=1 to see more",
}
_SEEN_BY_RUNNER = frozenset(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"}
_OTHER_KEYS = _SEEN_BY_RUNNER | {"find_unused_parameters", "sync_bn", "model_wrapper_cfg"}


def read_options(given: Sequence[str]) -> dict[str, Any]:
    """``key=value`` texts, read by mmengine's own rules (`mmengine.config.DictAction`).

    Numbers, ``True``, ``False`` and ``None`` are read as such, ``[1,2]`` and ``(1,2)`` as lists and
    tuples, anything else as text.

    Raises:
        JobError: a text has no ``=`` or unbalanced brackets.
    """
    for text in given:
        if not text.partition("=")[0].strip() or "=" not in text:
            example = "optim_wrapper.optimizer.lr=0.02"
            raise JobError(f"--cfg-options {text!a}: it must be key=value, as in {example}")
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("options", nargs="*", action=DictAction)
    try:
        return dict(parser.parse_args(["--", *given]).options or {})
    except AssertionError as error:
        raise JobError(f"--cfg-options: {error}") from error


def change_config(config: Config, options: Sequence[str]) -> None:
    """Changes values of a config in place.

    Args:
        options: ``key=value``; the key is a dotted path, an index for a list.

    Raises:
        JobError: see `read_options`; or a key starts with nothing that a training reads, leads
            through something that is no mapping or list, or is `train`'s own business.
    """
    for key, value in read_options(options).items():
        first = key.split(".")[0]
        if first in _OWN:
            raise JobError(f"--cfg-options {key}: {_OWN[first]}")
        if first not in config and first not in _OTHER_KEYS:
            known = ", ".join(sorted(name for name in config if not name.startswith("_")))
            raise JobError(f"--cfg-options {key}: the config has no {first!a}; it has {known}")
        try:
            config.merge_from_dict({key: value}, allow_list_keys=True)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            why = error.args[0] if error.args else type(error).__name__  # a KeyError quotes itself
            raise JobError(f"--cfg-options {key}: {why}") from error
