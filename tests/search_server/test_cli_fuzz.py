"""Whatever is typed: an exit status of 0, 1 or 2, at most one line of error, never a traceback."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from search_server.cli import run
from search_server.store import CandidateRecord, Store

# Trained or sent by no input: paths do not exist, names are no packaged detector's.
VERBS = (
    *("search", "resume", "jobs", "leaderboard", "show", "export", "report", "train", "init"),
    *("gc", "data info", "db current", "verify", "submit"),
)
OPTIONS = (
    *("--json", "--limit", "-n", "--offset", "--state", "--job", "--candidate", "-o", "--output"),
    *("--standalone", "--force", "--dry-run", "--slots", "--trace", "--space", "--loss", "--data"),
    *("--loss-cls", "--loss-bbox", "--steps", "--seed", "--images", "--help", "--address", "--"),
)
WORDS = (
    *("fuzz-1", "fuzz-1:0", "fuzz-1:1", "0", "1", "-1", "99999999999999999999", "done", "open"),
    *("box", "binary_cls", "Neg(Div(I,U))", "Neg(", "nope.py", "nope.yaml", "/", ".", "", "\0"),
    *("[red]", "\x1b[31m", "\ud800", "١", "1e9", "nan", "fuzz-1:١", "fuzz-1:-0", "auto"),
)
words = st.one_of(st.sampled_from(OPTIONS), st.sampled_from(WORDS), st.text(max_size=20))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and a store with a job of two candidates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOSSFORGE_STORE", str(tmp_path / "store.db"))
    with Store.open(str(tmp_path / "store.db")) as store:
        job = store.create_job("fuzz", {}, "", ["x"])
        for index, fitness in enumerate((0.4, None)):
            record = CandidateRecord(
                index, "named", (), {}, f"k{index}", fitness=fitness, cls_text="[b]x\x1b[0m"
            )
            store.add_candidate(job, record)
        store.set_job_state(job, "running")
        store.set_job_state(job, "done")
    return tmp_path


def typed(arguments: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    return code, out.getvalue(), err.getvalue()


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(verb=st.sampled_from(VERBS), rest=st.lists(words, max_size=5))
def test_any_arguments(world: Path, verb: str, rest: list[str]) -> None:
    if verb == "submit":
        rest = [word for word in rest if word != "--resume"]  # that one would ask the network
    code, out, err = typed([*verb.split(), *rest])
    assert code in (0, 1, 2), err
    assert "Traceback" not in out + err
    assert "is a bug in Lossforge" not in err, err
    assert "\x1b" not in err
    if code == 0 and "--json" in rest and "--help" not in rest and "-h" not in rest:
        options = rest[: rest.index("--")] if "--" in rest else rest
        if "--json" in options and out.startswith(("{", "[")):
            json.loads(out, parse_constant=lambda name: pytest.fail(name))


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(arguments=st.lists(st.text(max_size=12), max_size=4))
def test_any_text_at_all(world: Path, arguments: list[str]) -> None:
    code, out, err = typed(arguments)
    assert code in (0, 2)
    assert "Traceback" not in out + err
    assert "is a bug in Lossforge" not in err, err


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(url="~0")
@given(url=st.one_of(st.text(max_size=40), st.text(max_size=30).map("sqlite:///{}".format)))
def test_any_store(world: Path, url: str) -> None:
    code, _, err = typed(["jobs", f"--store={url}"])
    assert code in (0, 2)
    assert "is a bug in Lossforge" not in err, err
