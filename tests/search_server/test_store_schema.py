"""The migrations give exactly the models' schema, and any other schema is refused."""

import subprocess
import sys
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from search_server.errors import SchemaError, StoreError
from search_server.store import Store, schema
from search_server.store.engine import connect
from search_server.store.models import Base
from search_server.store.url import parse_url, shown


def stamp(url: str, revision: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
    engine.dispose()


def test_migrations_give_the_models(url):
    Store.open(url).close()
    engine = connect(parse_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_migrations_give_the_models_checks_too(url, new_url):
    """Alembic compares no CHECK constraints, so they are compared here."""
    Store.open(url).close()
    fresh = create_engine(new_url())
    Base.metadata.create_all(fresh)
    migrated = create_engine(url)
    for table in Base.metadata.tables:
        found, wanted = (
            {(c["name"], c["sqltext"]) for c in inspect(engine).get_check_constraints(table)}
            for engine in (migrated, fresh)
        )
        assert found == wanted
        assert inspect(migrated).get_pk_constraint(table) == inspect(fresh).get_pk_constraint(table)
    for engine in (migrated, fresh):
        engine.dispose()


def test_every_constraint_has_a_name():
    for table in Base.metadata.tables.values():
        for constraint in table.constraints:
            assert constraint.name, f"{table.name}: {constraint}"


def test_one_head_and_a_line_of_revisions():
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert len(scripts.get_heads()) == 1
    assert len(scripts.get_bases()) == 1


def test_down_and_up_again(url):
    Store.open(url).close()
    engine = connect(parse_url(url), foreign_keys=False)
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
    with Store.open(url) as store:
        assert store.create_job("x", {}, "", ["a"]) == "x-1"


def test_a_newer_schema_is_refused_with_the_command(url):
    Store.open(url).close()
    stamp(url, "9999")
    with pytest.raises(SchemaError, match=r"9999.*newer.*pip install --upgrade") as caught:
        Store.open(url)
    assert (caught.value.found, caught.value.wanted) == ("9999", schema.head())
    with pytest.raises(SchemaError, match="newer"):
        schema.upgrade(parse_url(url))


def test_an_older_schema_is_refused_with_the_command(url):
    Store.open(url).close()
    stamp(url, "0001")
    with pytest.raises(SchemaError) as caught:
        Store.open(url)
    message = str(caught.value)
    assert f"lossforge db upgrade --store '{shown(parse_url(url))}'" in message
    assert ("*** stands for the password" in message) == ("***" in message)
    assert "back it up" in message


def test_upgrade_says_what_it_did(url):
    assert schema.current(parse_url(url)) is None
    assert schema.upgrade(parse_url(url)) == (None, schema.head())
    assert schema.upgrade(parse_url(url)) == (schema.head(), schema.head())
    assert schema.current(parse_url(url)) == schema.head()


def test_a_failing_migration_leaves_nothing(url, monkeypatch):
    upgrade = command.upgrade

    def broken(*given: Any) -> None:
        upgrade(*given)
        raise StoreError("broken on purpose")

    monkeypatch.setattr(command, "upgrade", broken)
    with pytest.raises(StoreError, match="broken on purpose"):
        schema.upgrade(parse_url(url))
    assert schema.current(parse_url(url)) is None
    monkeypatch.undo()
    Store.open(url).close()


def test_many_processes_create_one_schema(url):
    code = "import sys; from search_server.store import Store; Store.open(sys.argv[1]).jobs()"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors


def test_migrations_are_found_from_anywhere(url, tmp_path, monkeypatch):
    """A folder that has its own `migrations`, `losses` and `alembic.ini` is not looked into."""
    for name in ("migrations", "losses", "search_server"):
        (tmp_path / name).mkdir()
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = nowhere\n")
    monkeypatch.chdir(tmp_path)
    Store.open(url).close()
