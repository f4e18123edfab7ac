"""What stands on the leaderboard, by its keys: the rows of candidates, and their trials.

The keys are one parameter, or two, however many they are: neither SQLAlchemy nor the database has a
new statement to read for each number of them, which took longer than to answer it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Text,
    and_,
    bindparam,
    func,
    select,
    type_coerce,
)

from search_server.confirmation import JUDGING, MEASURED
from search_server.leaderboard_query import Line, Query
from search_server.store.models import Candidate, Trial
from search_server.store.records import LAST_INDEX

STAGE = "proxy"  # the stage whose trials make the fitness
_SHOWN = (
    *("job_id", "serial", "board", "name", "origin", "cls_text", "bbox_text", "size", "stage"),
    *("state", "reason", "simulate_score", "fitness", "definition", "standing", "behind"),
    *("gain", "p", "shrunken", "family"),
)
_C, _T = Candidate.__table__.c, Trial.__table__.c

Key = tuple[str, int]  # job, index
Values = Mapping[int, float]
"""AP in [0, 1] by seed, ascending."""


@dataclass(frozen=True)
class Trials:
    """The trials of one candidate that say something about its loss; one that diverged has the
    worst AP there is.

    Attributes:
        stages: AP by seed of each stage that has any.
        sources: stage, seed and source of the results that were taken over.
    """

    stages: Mapping[str, Values] = field(default_factory=dict)
    sources: Sequence[tuple[str, int, str]] = ()

    def values(self, stage: str) -> Values:
        """Those of a stage; empty where it has none."""
        return self.stages.get(stage, {})

    def reused(self, *, proxy: bool = True) -> tuple[str, ...]:
        """The sources, the proxy's first, or left out."""
        order = sorted(self.sources, key=lambda each: (each[0] != STAGE, *each))
        return tuple(source for stage, _, source in order if proxy or stage != STAGE)


def candidates(connection: Connection, keys: Collection[Key]) -> dict[Key, Line]:
    """The rows of those candidates that are there."""
    dialect = connection.dialect.name
    found = connection.execute(_candidates(dialect), _given(dialect, keys)).all()
    return {(line.job_id, line.number): line for line in found if line.job_id is not None}


def trials(connection: Connection, keys: Collection[Key]) -> dict[Key, Trials]:
    """The trials of those candidates that have any; those of simulation left out."""
    dialect = connection.dialect.name
    stages: dict[Key, dict[str, dict[int, float]]] = {}
    sources: dict[Key, list[tuple[str, int, str]]] = defaultdict(list)
    lines = connection.execute(_trials(dialect), _given(dialect, keys))
    # A few at a time: thousands of rows at once have Python look for garbage in all that it holds.
    for job, candidate, stage, seed, state, fitness, source in chain.from_iterable(
        lines.partitions(100)
    ):
        if state not in MEASURED:
            continue
        own = stages.setdefault((job, candidate), {}).setdefault(stage, {})
        if state == "diverged":
            own[seed] = 0.0
        elif fitness is not None:
            own[seed] = fitness
        if source is not None:
            sources[job, candidate].append((stage, seed, source))
    return {
        key: Trials({stage: dict(sorted(own.items())) for stage, own in each.items()}, sources[key])
        for key, each in stages.items()
    }


def _given(dialect: str, keys: Collection[Key]) -> dict[str, Any]:
    """The parameters that stand for the keys, without those that PostgreSQL would refuse to look
    for."""
    keys = [key for key in keys if 0 <= key[1] <= LAST_INDEX]
    if dialect == "postgresql":
        return {"jobs": [job for job, _ in keys], "numbers": [number for _, number in keys]}
    return {"keys": json.dumps([*keys])}


@cache
def _candidates(dialect: str) -> Query:
    asked, job, number = _asked(dialect)
    # A row of a result has a method `index`.
    columns = (_C["index"].label("number"), *(_C[name] for name in _SHOWN))
    own = and_(_C.job_id == job, _C["index"] == number)
    return select(*columns).select_from(asked).outerjoin(Candidate.__table__, own)


@cache
def _trials(dialect: str) -> Query:
    asked, job, number = _asked(dialect)
    # Nothing is asked of the state: SQLite would look through all trials of a job that are in it.
    own = and_(_T.job_id == job, _T.candidate == number, _T.stage.in_((STAGE, *JUDGING)))
    columns = (_T.job_id, _T.candidate, _T.stage, _T.seed, _T.state, _T.fitness, _T.reused_from)
    return select(*columns).select_from(asked).outerjoin(Trial.__table__, own)


def _asked(dialect: str) -> tuple[FromClause, ColumnElement[str], ColumnElement[int]]:
    """The keys as a table, its jobs and its indices. What is asked for is joined from the outside:
    left to itself, SQLite would begin with all trials of a stage."""
    if dialect == "postgresql":
        lists = (bindparam("jobs", type_=ARRAY(Text)), bindparam("numbers", type_=ARRAY(Integer)))
        asked = func.unnest(*lists).table_valued("job", "number", name="asked").render_derived()
        return asked, type_coerce(asked.c.job, Text), type_coerce(asked.c.number, Integer)
    asked = func.json_each(bindparam("keys", type_=Text)).table_valued("value", name="asked")
    job, number = (func.json_extract(asked.c.value, f"$[{place}]") for place in (0, 1))
    return asked, type_coerce(job, Text), type_coerce(number, Integer)
