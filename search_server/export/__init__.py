"""Exports: a candidate as an mmdet config that trains anywhere, on its own if need be."""

from search_server.export.exporter import export

__all__ = ["export"]
