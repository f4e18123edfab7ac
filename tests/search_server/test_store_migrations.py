"""Stores with rows in them go up and down through the revisions and lose nothing."""

import json
from typing import Any

import numpy as np
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from search_server.errors import SchemaError
from search_server.fingerprints import Fingerprint
from search_server.spec import JobSpec
from search_server.store import CandidateRecord, NoiseFloor, Store, schema
from search_server.store.engine import connect
from search_server.store.url import parse_url
from workers import TrialResult

ORIGINS = ("baseline", "named", "random", "mutation", "crossover")


def migrate(url: str, revision: str) -> None:
    """To a revision, up or down, as `schema.upgrade` does it."""
    engine = connect(parse_url(url), foreign_keys=False)
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        up = (schema.current(parse_url(url)) or "0000") < revision
        (command.upgrade if up else command.downgrade)(config, revision)
        if connection.dialect.name == "sqlite":
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
                        ":key, :hash, NULL, 'c', 'b', 3, 'proxy', 'done', NULL, 0.25, '', :at)"
                    ),
                    {
                        "job": job,
                        "index": index,
                        "origin": origin,
                        "definition": json.dumps({"name": key}),
                        "key": key,
                        "hash": key,
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
    after = rows(old)
    assert after.keys() - before.keys() >= {"losses", "noise_floors", "job_totals", "trial_counts"}
    counted = [("a-1", "proxy", "done", 10), ("b-1", "proxy", "done", 10)]
    assert after["trial_counts"] == counted
    for name, kept in before.items():
        if name == "jobs":  # what they trained, they go on to train
            spec = {"calibrate": False, "target_gain": None}
            kept = [(*row[:7], spec, *row[8:]) for row in kept]
        assert [row[: len(kept[0])] for row in after[name]] == kept, name
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


def test_what_is_new_goes_down_as_the_nearest_word(old: str) -> None:
    schema.upgrade(parse_url(old))
    before = rows(old)
    with Store.open(old) as store:
        floor = NoiseFloor("g", 4, 0.2, 0.01, 0.005, 3, [{"name": "default"}])
        store.add_noise_floor(floor)
        print_of = Fingerprint("{}", np.ones(4), {"cls": 2.0})
        for index, origin in ((5, "rival"), (6, "refined"), (7, "tuned")):
            made = CandidateRecord(
                index, origin, (), {}, key=f"n{index}", stage="confirm", calibration={"cls": 2.0}
            )  # type: ignore[arg-type]
            store.add_candidate("a-1", made, fingerprint=print_of)
        store.start_trial("a-1", 5, "proxy", 0, "k", "1" * 64, pause_after=10)
        paused = TrialResult("paused", "", None, 0, 20, rungs={10: 0.5})
        store.finish_trial("a-1", 5, "proxy", 0, paused)
        for stage in ("confirm", "test"):
            store.start_trial("a-1", 5, stage, 1000, "k", "2" * 64)  # type: ignore[arg-type]
    migrate(old, "0002")
    with create_engine(old).connect() as connection:
        query = 'SELECT origin, stage FROM candidates WHERE "index" > 4'
        assert connection.execute(text(query)).fetchall() == [("random", "proxy")] * 3
        query = "SELECT stage, state FROM trials WHERE candidate = 5"
        assert connection.execute(text(query)).fetchall() == [("proxy", "failed")]
        assert (
            connection.execute(text("SELECT CAST(spec AS TEXT) FROM jobs")).fetchall()
            == [("{}",)] * 2
        )
        assert "losses" not in inspect(connection).get_table_names()
    schema.upgrade(parse_url(old))
    assert rows(old)["jobs"] == before["jobs"]
    assert len(rows(old)["trials"]) == len(before["trials"]) + 1


def test_what_ran_when_its_job_was_cancelled_has_ended(old: str) -> None:
    """Of a store of a version that left it running."""
    migrate(old, "0010")
    with create_engine(old).begin() as connection:
        for job, state in (("a-1", "cancelled"), ("b-1", "interrupted")):
            query = text("UPDATE jobs SET state = :state WHERE id = :job")
            connection.execute(query, {"job": job, "state": state})
            for change in (
                "UPDATE trials SET state = 'running' WHERE job_id = :job AND candidate < 2",
                "UPDATE trial_counts SET count = 6 WHERE job_id = :job",
                "INSERT INTO trial_counts VALUES (:job, 'proxy', 'running', 4)",
            ):
                connection.execute(text(change), {"job": job})
    before = rows(old)
    schema.upgrade(parse_url(old))
    with Store.open(old) as store:
        for job, state in (("a-1", "cancelled"), ("b-1", "running")):
            left = [each for each in store.trials(job) if each.state != "done"]
            assert [each.state for each in left] == [state] * 4
            ends = {each.finished_at for each in left}
            assert ends == {store.job(job).finished_at if job == "a-1" else None}
    counted = {each[:3]: each[3] for each in rows(old)["trial_counts"]}
    assert counted["a-1", "proxy", "cancelled"] == counted["b-1", "proxy", "running"] == 4
    migrate(old, "0010")
    assert rows(old) == before


@pytest.mark.parametrize("kind", ["evolution", "policy"])
def test_an_upgraded_spec_says_what_it_meant(old: str, kind: str) -> None:
    """Whatever becomes the default of a field that was not there, an old job goes on as it was."""
    searcher: dict[str, Any] = {"type": kind}
    if kind == "evolution":
        searcher |= {"mutate": {"subtree": 0.5, "point": 0.3, "hoist": 0.2}}
    proxy = {"steps": 50, "batch_size": 8, "seeds": [0]}
    funnel = {"simulate": None, "proxy": proxy}
    given = {"searcher": searcher, "funnel": funnel, "resources": {"cpus": 1.0}, "limits": {}}
    with create_engine(old).begin() as connection:
        query = text("UPDATE jobs SET spec = :spec WHERE id = 'a-1'")
        connection.execute(query, {"spec": json.dumps(given)})
    schema.upgrade(parse_url(old))
    with Store.open(old) as store:
        found = store.job("a-1").spec
    migrate(old, "0002")
    with create_engine(old).connect() as connection:
        query = text("SELECT CAST(spec AS TEXT) FROM jobs WHERE id = 'a-1'")
        assert json.loads(connection.execute(query).scalar() or "") == given
    assert found["calibrate"] is False
    assert found["funnel"]["confirm"] is None
    assert found["funnel"]["proxy"].items() >= {**proxy, "rungs": [], "warm_start": None}.items()
    assert found["resources"] == {"cpus": 1.0, "precision": "float32"}
    assert found["limits"] == {"steps": None}
    if kind == "policy":
        assert found["searcher"] == searcher
        return
    assert found["searcher"]["mutate"] == {**searcher["mutate"], "constant": 0.0}
    every = {"branches": {"bbox": {"space": "box"}}, "name": "x", "detector": "digits/atss"}
    spec = JobSpec.from_json({**found, **every})
    assert found["searcher"].keys() == spec.to_json()["searcher"].keys() - {
        *("population", "parents", "named", "random", "mutation", "crossover", "depth"),
    }


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
