"""The job spec: what a search job is, as a person writes it in YAML and the store keeps it."""

from search_server.spec.branches import BRANCHES, Branches, BranchSpec, ClsSpec
from search_server.spec.budgets import (
    Confirm,
    Funnel,
    Limits,
    Proxy,
    Resources,
    Simulate,
    Verify,
)
from search_server.spec.data import DataSpec, SplitSpec
from search_server.spec.loading import load_spec, parse_spec
from search_server.spec.models import JobSpec
from search_server.spec.policy import PapSpec, PolicySearcher
from search_server.spec.trees import Depth, Mutation, NamedPair, Searcher
from search_server.spec.tuning import HandmadeSpec, TuningSearcher

__all__ = [
    "BRANCHES",
    "BranchSpec",
    "Branches",
    "ClsSpec",
    "Confirm",
    "DataSpec",
    "Depth",
    "Funnel",
    "HandmadeSpec",
    "JobSpec",
    "Limits",
    "Mutation",
    "NamedPair",
    "PapSpec",
    "PolicySearcher",
    "Proxy",
    "Resources",
    "Searcher",
    "Simulate",
    "SplitSpec",
    "TuningSearcher",
    "Verify",
    "load_spec",
    "parse_spec",
]
