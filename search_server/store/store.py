"""The store: every change of a job, its candidates and its trials is one transaction here.

Contract:
    - Ids are given, never random: jobs `<slug>-<n>`, candidates (job, index), trials
      (job, candidate, stage, seed).
    - States only move as `moves.py` lists; a move that is not there raises `IllegalMove`.
    - After any method has returned, what it wrote outlives the process. A process killed inside a
      method leaves nothing of it behind.
    - No two trials of a store train the same: `trials.trained_key` is unique; see `trials.py`.
    - One process runs a job; any number may read. Methods may be called from any thread. A process
      that another one has replaced writes no more of the job: see `controllers.py`.
    - A database that does not answer raises `StoreAway`, and nothing was written; inside `patient`
      the methods wait for it and try again. What was committed without an answer is not repeated.
"""

from __future__ import annotations

from search_server.store.attempts import Attempts
from search_server.store.candidates import Candidates
from search_server.store.jobs import Jobs
from search_server.store.noise import NoiseFloors
from search_server.store.requests import Requests
from search_server.store.tokens import Tokens
from search_server.store.trials import Trials


class Store(Jobs, Attempts, Candidates, Trials, NoiseFloors, Tokens, Requests):
    """Jobs, candidates and trials in SQL. Use `Store.open`, and close it or use it in a `with`."""
