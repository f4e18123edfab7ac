"""The job spec: what a search job is, as a person writes it in YAML and the store keeps it."""

from search_server.spec.budgets import (
    Depth,
    Funnel,
    Limits,
    NamedPair,
    Proxy,
    Resources,
    Searcher,
    Simulate,
    Verify,
)
from search_server.spec.loading import load_spec, parse_spec
from search_server.spec.models import (
    BRANCHES,
    Branches,
    BranchSpec,
    ClsSpec,
    DataSpec,
    JobSpec,
    SplitSpec,
)
from search_server.spec.policy import PapSpec, PolicySearcher

__all__ = [
    "BRANCHES",
    "BranchSpec",
    "Branches",
    "ClsSpec",
    "DataSpec",
    "Depth",
    "Funnel",
    "JobSpec",
    "Limits",
    "NamedPair",
    "PapSpec",
    "PolicySearcher",
    "Proxy",
    "Resources",
    "Searcher",
    "Simulate",
    "SplitSpec",
    "Verify",
    "load_spec",
    "parse_spec",
]
