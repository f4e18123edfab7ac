"""Convergence property verification: is an expression a loss at all? Needs no detector."""

from search_server.funnel.verification.verdict import Verdict
from search_server.funnel.verification.verify import family_of, verify

__all__ = ["Verdict", "family_of", "verify"]
