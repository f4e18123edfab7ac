"""Losses that a spec gives: a catalogue name, a definition written out, or the path of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from losses import CATALOG, DefinitionError, LossDefinition
from losses.catalog import read_definition
from search_server.spec.places import Places


def given_loss(value: object, places: Places, name: str) -> str | dict[str, Any]:
    """What the store keeps of a given loss: the name of the catalogue, or the whole definition.

    A path is read here, once, so that a job depends on no file that may change later.

    Args:
        value: a name, a mapping, or a path ending in `.json`.
        places: which files may be named.
        name: of a definition that has none of its own.

    Raises:
        ValueError: none of these, or no loss definition; or a file that may not be named.
    """
    try:
        if isinstance(value, Mapping):
            return LossDefinition.from_json({"name": name, **value}).to_json()
        if isinstance(value, str) and value.endswith(".json") and "\0" not in value:
            return read_definition(places.path(value)).to_json()
    except (DefinitionError, TypeError) as error:
        raise ValueError(f"it must be a loss definition: {error}") from error
    if not isinstance(value, str) or value not in CATALOG:
        names = ", ".join(CATALOG)
        raise ValueError(
            f"it must be a loss definition, the path of one (*.json), or one of {names}"
        )
    return value


def definition_of(given: str | Mapping[str, Any]) -> LossDefinition:
    """The definition that `given_loss` gave."""
    return CATALOG[given] if isinstance(given, str) else LossDefinition.from_json(given)
