"""Stores with rows in them go up and down through the revisions and lose nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from search_server.errors import SchemaError
from search_server.store import CandidateRecord, Store, schema
from search_server.store.engine import connect
from search_server.store.url import parse_url

ORIGINS = ("baseline", "named", "random", "mutation", "crossover")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def migrate(url: str, revision: str) -> None:
    """To a revision, up or down, as `schema.upgrade` does it."""
    engine = connect(parse_url(url), foreign_keys=False)
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        up = (schema.current(parse_url(url)) or "0000") < revision
        (command.upgrade if up else command.downgrade)(config, revision)
        assert connection.execute(text("PRAGMA foreign_key_check")).fetchall() == []
    engine.dispose()


def rows(url: str) -> dict[str, list[Any]]:
    engine = create_engine(url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(select(table)).fetchall()]
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }
    engine.dispose()
    return {name: sorted(each, key=repr) for name, each in found.items()}


@pytest.fixture
def old(url: str) -> str:
    """A store of revision 0001 with rows in every table, written in the SQL of that time."""
    migrate(url, "0001")
    at = "2026-01-02 03:04:05.000000"
    engine = create_engine(url)
    with engine.begin() as connection:
        for job in ("a-1", "b-1"):
            connection.execute(
                text(
                    "INSERT INTO jobs VALUES (:id, :serial, :slug, 1, 'x', 'done', '', '{}', 'd', "
                    "'[\"one\"]', 'g', NULL, :at, :at, NULL)"
                ),
                {"id": job, "serial": 1 + (job == "b-1"), "slug": job[0], "at": at},
            )
            for index, origin in enumerate(ORIGINS):
                key = f"{job}{index}"
                connection.execute(
                    text(
                        "INSERT INTO candidates VALUES (:job, :index, :origin, '[0]', :definition, "
                        ":key, :key, NULL, 'c', 'b', 3, 'proxy', 'done', NULL, 0.25, '', :at)"
                    ),
                    {
                        "job": job,
                        "index": index,
                        "origin": origin,
                        "definition": json.dumps({"name": key}),
                        "key": key,
                        "at": at,
                    },
                )
                for seed in (0, 2**31 - 1):
                    connection.execute(
                        text(
                            "INSERT INTO trials (job_id, candidate, stage, seed, state, spec_key, "
                            "reason, fitness, curves, started_at) VALUES "
                            "(:job, :index, 'proxy', :seed, 'done', 'k', '', 0.5, '{}', :at)"
                        ),
                        {"job": job, "index": index, "seed": seed, "at": at},
                    )
            connection.execute(
                text("INSERT INTO funnel_counts VALUES (:job, 'random', 'accepted', 7)"),
                {"job": job},
            )
            connection.execute(
                text("INSERT INTO draws VALUES (:job, 1, 0, 'random', 'Neg(I)', 'known')"),
                {"job": job},
            )
    engine.dispose()
    return url


def refused(url: str, origin: str) -> bool:
    """Whether the store takes no candidate of this origin."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE candidates SET origin = :origin WHERE job_id = 'a-1' AND \"index\" = 4"
                ),
                {"origin": origin},
            )
    except IntegrityError:
        return True
    finally:
        engine.dispose()
    return False


def test_an_old_store_is_refused_until_it_is_upgraded(old: str) -> None:
    with pytest.raises(SchemaError, match="lossforge db upgrade"):
        Store.open(old)
    assert schema.upgrade(parse_url(old)) == ("0001", schema.head())
    Store.open(old).close()


def test_up_and_down_keep_every_row(old: str) -> None:
    before = rows(old)
    assert [len(before[name]) for name in ("jobs", "candidates", "trials")] == [2, 10, 20]
    assert refused(old, "policy")
    schema.upgrade(parse_url(old))
    assert rows(old) == before
    migrate(old, "0001")
    assert rows(old) == before
    assert refused(old, "policy")
    engine = create_engine(old)
    names = {each["name"] for each in inspect(engine).get_indexes("candidates")}
    engine.dispose()
    assert "ix_candidates_job_id_state_fitness_simulate_score_index" in names


def test_an_upgraded_store_is_written_and_its_keys_hold(old: str) -> None:
    schema.upgrade(parse_url(old))
    assert refused(old, "nobody")
    with Store.open(old) as store:
        assert [each.origin for each in store.candidates("a-1")] == list(ORIGINS)
        assert len(store.trials("a-1")) == 10
        for index, origin in ((5, "policy"), (6, "mean")):
            made = CandidateRecord(index, origin, (), {}, key=f"new{index}")  # type: ignore[arg-type]
            store.add_candidate("a-1", made)
    engine = connect(parse_url(old))
    with (
        pytest.raises(IntegrityError),
        engine.begin() as connection,
    ):  # the trials still refer to it
        connection.execute(text("DELETE FROM candidates WHERE job_id = 'b-1'"))
    engine.dispose()


def test_new_origins_go_down_as_random(old: str) -> None:
    schema.upgrade(parse_url(old))
    assert not refused(old, "mean")
    migrate(old, "0001")
    engine = create_engine(old)
    with engine.connect() as connection:
        query = "SELECT origin FROM candidates WHERE job_id = 'a-1' AND \"index\" = 4"
        assert connection.execute(text(query)).scalar() == "random"
    engine.dispose()
    assert len(rows(old)["trials"]) == 20
