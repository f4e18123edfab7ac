"""The picture of a job: how its search went, what it found, and what the found loss looks like."""

from search_server.report.draw import report

__all__ = ["report"]
