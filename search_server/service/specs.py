"""Job specs as the service takes and shows them: no path goes in or out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from search_server.service.settings import ServiceSettings
from search_server.spec.data import PACKAGED, DataSpec


def shown_spec(spec: Mapping[str, Any], settings: ServiceSettings) -> dict[str, Any]:
    """A spec of the store without the places of files: names of the service's settings, where it
    has them."""
    shown = dict(spec)
    detector = str(spec.get("detector", ""))
    named = {path: name for name, path in settings.allowed_detectors().items()}
    if detector in named:
        shown["detector"] = named[detector]
    elif not PACKAGED.fullmatch(detector):
        shown["detector"] = PurePath(detector).name
    data = spec.get("data")
    if isinstance(data, Mapping):
        known = {
            name: given.model_dump(mode="json")
            for name, given in settings.data.items()
            if isinstance(given, DataSpec)
        }
        same = [name for name, given in known.items() if given == data]
        shown["data"] = same[0] if same else f"{len(data)} splits in COCO format"
    return shown
