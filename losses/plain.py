"""Configs as plain data: a lazy config's classes and functions as their dotted names."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict


def plain_config(config: Config | Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of a config in plain dicts and lists, without classes, functions or modules.

    mmengine's registries find a class by its dotted name, so the copy builds the same objects.
    """
    # mmengine's own to_dict drops what a lazy config imports and names what it refers to
    data = config.to_dict() if isinstance(config, Config | ConfigDict) else config
    return {str(key): _plain_value(value) for key, value in data.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_value(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain_value(item) for item in value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return value
