"""The store: jobs, candidates and trials in SQL, behind one class and frozen records."""

from search_server.store.records import (
    CANDIDATE_STATES,
    JOB_STATES,
    METRICS,
    ORIGINS,
    PHASES,
    STAGES,
    TRIAL_STATES,
    CandidateRecord,
    DrawRecord,
    JobRecord,
    NoiseFloor,
    Start,
    SubmissionRecord,
    TrialRecord,
)
from search_server.store.store import Store
from search_server.store.url import default_url

__all__ = [
    "CANDIDATE_STATES",
    "JOB_STATES",
    "METRICS",
    "ORIGINS",
    "PHASES",
    "STAGES",
    "TRIAL_STATES",
    "CandidateRecord",
    "DrawRecord",
    "JobRecord",
    "NoiseFloor",
    "Start",
    "Store",
    "SubmissionRecord",
    "TrialRecord",
    "default_url",
]
