"""The command line: what people and programs read, exit statuses, one line per error."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from losses import CATALOG, configs_dir
from search_server.cli import run
from search_server.cli.formula import Formula
from search_server.cli.live import line, panel, watched
from search_server.cli.output import WIDTH, duration, jsonable
from search_server.cli.search import _conclude, best_line
from search_server.leaderboard import leaderboard_row
from search_server.progress import Best, Progress
from search_server.store import CandidateRecord, Store
from workers import TrialResult

LONG = "Neg(Dot(Mul(Y,Add(1,Sin(Z))),Log(Softmax(X))))"
EVIL = "[bold red]x[/]\x1b[31m\n\r$(reboot)'\"; \u202e"
COMMAND = (sys.executable, "-P", "-m", "search_server.cli")

Outcome = SimpleNamespace


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command line in this process."""

    def calling(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code=code, out=captured.out, err=captured.err)

    return calling


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with one job of four candidates, and the default store of the commands."""
    monkeypatch.setenv("LOSSFORGE_STORE", str(store_path))
    with Store.open(str(store_path)) as opened:
        spec = {"detector": "digits/atss", "data": "digits", "funnel": {"proxy": {"steps": 300}}}
        job = opened.create_job("first", spec, "", ["x"], "g")
        texts = {1: (LONG, "Sub(1,Div(I,U))"), 2: (EVIL, EVIL), 3: (LONG * 4, LONG * 3)}
        for index in range(4):
            cls, bbox = texts.get(index, (None, None))
            origin = "random" if index else "baseline"
            record = CandidateRecord(
                index, origin, (), {"name": EVIL}, f"k{index}", cls_text=cls, bbox_text=bbox,
                stage="proxy", name="default" if index == 0 else None,
            )  # fmt: skip
            opened.add_candidate(job, record, {(origin, "accepted"): 1})
            if index < 3:
                for seed in (0, 1):
                    fitness = 0.4 + 0.05 * index + 0.01 * seed
                    opened.start_trial(job, index, "proxy", seed, "k")
                    ended = TrialResult(
                        "done", "", fitness, seed, 300, {"ap50": 0.6}, {"loss": [2.0, 1.0]}
                    )
                    opened.finish_trial(job, index, "proxy", seed, ended)
                opened.update_candidate(job, index, state="done", fitness=0.405 + 0.05 * index)
        opened.start_trial(job, 3, "proxy", 0, "k")
        failed = TrialResult("failed", EVIL, None, 0, 300, log=f"a\n{EVIL}\nlast")
        opened.finish_trial(job, 3, "proxy", 0, failed)
        opened.update_candidate(job, 3, state="failed", reason=EVIL)
        yield opened


def read(text: str) -> dict:
    """Strict JSON: NaN and infinity are errors."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def assert_tame(text: str) -> None:
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\u202e" not in text
    assert max((len(line) for line in text.splitlines()), default=0) <= WIDTH


class TestHelp:
    VERBS = (
        *("init", "search", "submit", "resume", "verify", "jobs", "leaderboard", "show", "export"),
        *("report", "formula", "train", "compare", "gc", "doctor", "data", "db"),
        *("noise", "stages", "publish", "calibrate", "bench", "table"),
        *("status", "logs", "cancel", "metrics", "serve", "token"),
    )

    def test_lists_every_verb(self, call):
        shown = call("--help")
        assert shown.code == 0
        listed = re.findall(r"^\W ([a-z]+) {2,}\S", shown.out, re.MULTILINE)
        assert set(listed) == set(self.VERBS)
        for verb in self.VERBS:
            assert re.search(rf"^. {verb}\b", shown.out, re.MULTILINE), verb

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_has_help(self, call, verb):
        assert call(verb, "--help").code == 0

    @pytest.mark.parametrize(
        "verb",
        [*(v for v in VERBS if v not in ("data", "db", "table", "token"))]
        + ["data digits", "data info", "data split", "db upgrade", "db current"]
        + ["db check-identity", "table plan", "table build", "table export", "table show"]
        + ["token create", "token list", "token revoke"],
    )
    def test_every_verb_has_an_example(self, call, verb):
        assert f"Example: lossforge {verb}" in " ".join(call(*verb.split(), "--help").out.split())

    def test_loads_nothing_heavy(self):
        code = (
            "import sys; from search_server.cli import run; run(['--help']); "
            "heavy = {'torch', 'mmdet', 'mmengine', 'ray', 'sqlalchemy', 'matplotlib', 'pydantic'};"
            "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_version(self, call):
        assert re.fullmatch(r"lossforge \d+\.\d+\.\d+\S*\n", call("--version").out)

    def test_nothing_asked(self, call):
        assert "Usage: lossforge" in call().out + call().err


class TestLeaderboard:
    def test_people_read_ranks_differences_and_whole_formulas(self, store, call):
        shown = call("leaderboard", "first-1")
        assert shown.code == 0
        assert_tame(shown.out)
        lines = shown.out.splitlines()
        assert lines[0] == "digits/atss on digits, 300 steps"
        assert re.match(r"1\*\s+2\s+50\.5\s+0\.7\s+\+10\.0 ±0\.0\s+2\s+proxy\s+done", lines[2])
        assert re.search(r"3\s+0\s+40\.5\s+0\.7\s+baseline", shown.out)
        together = re.sub(r"\s+", "", shown.out)
        assert LONG in together
        assert LONG * 4 in together  # wrapped, never cut

    def test_programs_read_json(self, store, call):
        found = read(call("leaderboard", "first-1", "--json").out)
        (group,) = found["groups"]
        assert group["trial_group"] == "g"
        assert [row["id"] for row in group["rows"]] == [f"first-1:{i}" for i in (2, 1, 0, 3)]
        assert group["rows"][0]["difference"]["seeds"] == 2
        assert group["rows"][3]["rank"] is None
        assert group["baseline"]["id"] == "first-1:0"

    def test_all_jobs(self, store, call):
        assert "first-1:2" in call("leaderboard").out

    @pytest.mark.parametrize("option", ["--limit", "--offset"])
    def test_no_number_of_rows_is_beyond_the_databases(self, store, call, option):
        shown = call("leaderboard", option, "9" * 23)
        assert shown.code == 2
        assert "1000000000" in shown.err
        assert "Traceback" not in shown.err
        assert call("leaderboard", option, 10**9).code == 0

    def test_pages_and_states(self, store, call):
        shown = call("leaderboard", "first-1", "--limit", "1")
        assert "1 of 4 candidates" in shown.out
        assert "baseline" in shown.out  # always there to compare with
        rows = read(call("leaderboard", "--state", "failed", "--json").out)["groups"][0]["rows"]
        assert [row["index"] for row in rows] == [3]

    def test_an_empty_store(self, tmp_path, call):
        Store.open(str(tmp_path / "empty.db")).close()
        shown = call("leaderboard", "--store", tmp_path / "empty.db")
        assert (shown.code, shown.out) == (0, "No candidates yet.\n")


class TestShow:
    @pytest.mark.parametrize("name", [("first-1:1",), ("1",), ("1", "--job", "first-1")])
    def test_one_candidate(self, store, call, name):
        shown = call("show", *name)
        assert shown.code == 0
        assert_tame(shown.out)
        assert LONG in shown.out
        assert "AP 45.5 ± 0.7 over 2 seeds" in shown.out
        assert "+5.0 ±0.0" in shown.out

    def test_what_was_read_on_the_splits_that_judge(self, store, call):
        for stage, first in (("confirm", 1000), ("test", 2000)):
            for index, lead in ((0, 0.0), (1, 0.02), (2, 0.03)):
                for seed in range(first, first + 3):
                    fitness = 0.5 + lead + 0.001 * (seed - first) * index
                    store.start_trial("first-1", index, stage, seed, "k")
                    ended = TrialResult("done", "", fitness, seed, 300)
                    store.finish_trial("first-1", index, stage, seed, ended)
        shown = call("show", "first-1:1")
        assert_tame(shown.out)
        words = " ".join(shown.out.split())
        row = leaderboard_row(store, "first-1", 1)
        assert "confirm AP 52.1 over 3 seeds; +2.1 (+1.9 to +2.3) to the baseline, p " in words
        assert f"corrected for 2 confirmed; shrunken {100 * row.judged.shrunken:+.1f}" in words
        assert "test AP 52.1 over 3 seeds; +2.1 (+1.9 to +2.3) to the baseline, p " in words
        base = " ".join(call("show", "first-1:0").out.split())
        assert "confirm AP 50.0 over 3 seeds" in base
        assert "to the baseline, p" not in base
        found = read(call("show", "first-1:1", "--json").out)["judged"]
        assert found["family"] == 2
        assert found["test"]["difference"]["mean"] == pytest.approx(0.021)

    def test_json_has_all_trials_with_curves(self, store, call):
        found = read(call("show", "first-1:2", "--json").out)
        assert found["candidate"]["cls_text"] == EVIL
        assert [trial["seed"] for trial in found["trials"]] == [0, 1]
        assert found["trials"][0]["curves"] == {"loss": [2.0, 1.0]}
        assert found["difference"]["mean"] == pytest.approx(0.1)

    def test_a_failed_one_shows_why_and_what_it_printed(self, store, call):
        shown = call("show", "first-1:3")
        assert_tame(shown.out)
        assert "failed at proxy" in shown.out
        assert shown.out.rstrip().endswith("last")
        assert r"\x1b[31m" in shown.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nope:1"], "no job 'nope'.*first-1"),
            (["99"], "no candidate 99; it has candidates 0 to 3"),
            (["x"], "'x' is no candidate"),
            (["-1"], "No such option"),
            (["first-1:1", "--job", "other-1"], "another job"),
            (["first-1:99999999999"], "no candidate 99999999999; it has candidates 0 to 3"),
            (["first-1:" + "9" * 30], "no candidate 9{30}; it has candidates 0 to 3"),
            (["first-1:" + "9" * 5000], "is no candidate"),
        ],
    )
    def test_no_such_candidate(self, store, call, arguments, message):
        shown = call("show", *arguments)
        assert shown.code == 2
        assert re.search(message, shown.err)
        assert "Traceback" not in shown.err


class TestJobs:
    def test_a_table(self, store, call):
        shown = call("jobs")
        assert_tame(shown.out)
        assert re.search(r"first-1\s+created\s+\d+ s\s+3\s+2\s+50\.5\s+40\.5", shown.out)

    def test_json_and_filter(self, store, call):
        assert read(call("jobs", "--json").out)["jobs"][0]["best"] == 0.505
        assert read(call("jobs", "--json", "--state", "done").out) == {"jobs": []}
        assert call("jobs", "--state", "done").out == "No jobs that are done.\n"

    def test_one_job_shows_its_funnel_and_what_was_traced(self, store, call):
        counts = {("random", "deaf"): 1234, ("mutation", "deaf"): 2, ("random", "accepted"): 1}
        traced = [("random", LONG, "deaf"), ("random", EVIL, "known")]
        store.add_candidate("first-1", CandidateRecord(4, "random", (), {}, "k4"), counts, traced)
        shown = call("jobs", "first-1")
        assert_tame(shown.out)
        assert re.search(r"deaf +0 +2 +1,234 +1,236", shown.out)
        assert re.search(r"accepted +1 +0 +4 +5", shown.out)
        assert LONG in shown.out
        found = read(call("jobs", "first-1", "--json").out)
        assert {"origin": "random", "outcome": "deaf", "count": 1234} in found["counts"]
        assert [draw["text"] for draw in found["draws"]] == [LONG, EVIL]


class TestErrors:
    def test_reading_makes_no_store(self, tmp_path, call):
        for verb in (["jobs"], ["leaderboard"], ["show", "1"], ["resume", "x-1"]):
            shown = call(*verb, "--store", tmp_path / "none.db")
            assert shown.code == 2
            assert shown.err.startswith("lossforge: there is no store at")
        assert list(tmp_path.iterdir()) == []

    def test_no_password_on_the_screen(self, call):
        url = "postgresql://me:hunter2secret@127.0.0.1:1/db"
        for verb in (["jobs"], ["doctor"], ["db", "current"], ["db", "upgrade"]):
            shown = call(*verb, "--store", url)
            assert shown.code in (1, 2)
            assert "hunter2secret" not in shown.out + shown.err
            assert "127.0.0.1" in shown.out + shown.err

    def test_every_error_is_one_line(self, tmp_path, call):
        evil = tmp_path / "a\nb\x1b[1m.yaml"
        evil.write_text("name: [")
        shown = call("search", evil)
        assert shown.code == 2
        assert shown.err.count("\n") == 1
        assert "\x1b" not in shown.err

    def test_a_bug_is_a_line_too(self, call, monkeypatch):
        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr("search_server.store.Store.open", broken)
        shown = call("jobs")
        assert shown.code == 2
        assert shown.err == (
            "lossforge: ZeroDivisionError: oops (this is a bug in Lossforge; "
            "LOSSFORGE_DEBUG=1 shows where)\n"
        )

    def test_ctrl_c(self, call, monkeypatch):
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("search_server.store.Store.open", interrupted)
        assert call("jobs").code == 130

    def test_a_reader_that_goes_away(self, store):
        line = f"{' '.join(COMMAND)} leaderboard --json | head -c 1"
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        assert done.stdout == "{"

    @pytest.mark.parametrize("state", ["done", "cancelled"])
    def test_a_finished_job_is_not_resumed(self, store, call, state):
        store.set_job_state("first-1", "running")
        store.set_job_state("first-1", state)
        shown = call("resume", "first-1")
        assert shown.code == 2
        assert f"job first-1 is {state}" in shown.err

    def test_slots_on_a_cluster_are_refused_before_a_job_is_written(self, call, tmp_path):
        spec = configs_dir() / "search" / "demo.yaml"
        new = ("--store", tmp_path / "new.db")
        shown = call("search", spec, "--slots", "2", "--address", "10.0.0.1:6379", *new)
        assert shown.code == 2
        assert "--slots is for this machine" in shown.err
        assert not (tmp_path / "new.db").exists()

    def test_submit_wants_one_of_two(self, store, call):
        assert "one of the two" in call("submit").err
        assert "one of the two" in call("submit", "x.yaml", "--resume", "first-1").err

    def test_a_store_or_a_file_with_it(self, store, call, tmp_path):
        file = tmp_path / "url"
        file.write_text(f"sqlite:///{tmp_path / 'none.db'}\n")
        assert "not both" in call("resume", "x", "--store", "y", "--store-file", file).err
        assert "no store at" in call("resume", "x", "--store-file", file).err


class TestUpkeep:
    def test_doctor_finds_all_it_looks_for(self, store, call):
        shown = call("doctor", "--json")
        findings = {each["what"]: each for each in read(shown.out)["findings"]}
        wanted = {"Python", "packages", "mmcv", "detectors", "GPU", "Ray", "Ray token", "store"}
        assert wanted | {"disk", "digits"} <= set(findings)
        assert findings["store"]["verdict"] == "ok"
        assert findings["detectors"]["verdict"] == "ok"
        for each in findings.values():
            assert each["verdict"] == "ok" or each["cure"]
        assert shown.code == int(any(e["verdict"] == "fail" for e in findings.values()))

    def test_doctor_fails_on_a_store_of_another_schema(self, store, store_path, call):
        import sqlite3

        with sqlite3.connect(store_path) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        shown = call("doctor")
        assert shown.code == 1
        assert_tame(shown.out)
        assert "-> pip install --upgrade lossforge" in shown.out

    def test_doctor_fails_on_no_store(self, tmp_path, call):
        (tmp_path / "x.db").write_text("no database " * 100)
        shown = call("doctor", "--store", tmp_path / "x.db", "--json")
        assert shown.code == 1
        assert read(shown.out)["ok"] is False

    def test_db(self, tmp_path, call):
        url = f"sqlite:///{tmp_path / 'x.db'}"
        assert read(call("db", "current", "--json", "--store", url).out)["schema"] is None
        assert "(from nothing)" in call("db", "upgrade", "--store", url).out
        assert "(was there already)" in call("db", "upgrade", "--store", url).out
        found = read(call("db", "current", "--json", "--store", url).out)
        assert found["schema"] == found["reads"]

    def test_gc_removes_what_a_killed_process_left(self, own_home, call):
        stale = own_home / "work" / "worker-stale"
        stale.mkdir(parents=True)
        (stale / "file").write_bytes(b"x" * 1000)
        found = read(call("gc", "--dry-run", "--json").out)
        assert str(stale) in found["folders"]
        assert stale.exists()
        assert call("gc").code == 0
        assert not stale.exists()


class TestData:
    def test_digits_are_written_and_described(self, call, own_home):
        found = read(call("data", "digits", "--json").out)
        assert set(found["splits"]) == {"search_train", "search_val", "confirm", "test"}
        split = found["splits"]["search_val"]
        facts = read(
            call("data", "info", split["annotations"], "--images", split["images"], "--json").out
        )
        assert facts["images"] == 300
        assert sum(facts["classes"].values()) == facts["boxes"]
        assert next(iter(facts["classes"])) == "zero"

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"images": []}', "\x00"])
    def test_a_file_that_is_no_data_set(self, call, tmp_path, content):
        file = tmp_path / "x.json"
        file.write_text(content)
        shown = call("data", "info", file)
        assert shown.code == 2
        assert shown.err.startswith(f"lossforge: {file}")


class TestFormula:
    @pytest.mark.parametrize("width", [5, 12, 33, 80])
    def test_lines_fit_and_lose_nothing(self, width):
        text = LONG * 3
        lines = Formula(text, "cls  ").lines(width)
        assert all(len(line) <= max(width, 9) for line in lines)
        assert "".join(line[5:] for line in lines) == text

    def test_breaks_at_commas_and_brackets(self):
        lines = Formula("Add(Mul(X,Y),Neg(Sin(Z)))").lines(14)
        assert all(line[-1] in ",()" for line in lines)

    def test_a_word_without_a_break_is_broken_anywhere(self):
        assert Formula("x" * 25).lines(10) == ["x" * 10, "x" * 10, "x" * 5]

    def test_nothing_at_all(self):
        assert Formula("").lines(10) == [""]


class TestProgress:
    PROGRESS = Progress(
        job="first-1",
        funnel={"drawn": 32502, "verified": 16, "simulated": 12, "proxy": 4},
        candidates=16,
        of=32,
        baseline=0.432,
        best=Best(index=7, fitness=0.441, cls="[red]Neg(X)", bbox=None, rpn=None, joint=False),
        running=tuple(f"candidate {i} proxy seed 0" for i in range(9)),
        done=5,
        trials=23,
        seconds_left=750.0,
        waiting_for="",
        round="",
    )

    def test_a_policy_search(self):
        best = Best(
            index=7, fitness=0.441, cls="PAP (5 functions)", bbox=None, rpn="PAP (I1)", joint=True
        )
        policy = replace(self.PROGRESS, round="round 2 of 10", best=best)
        assert "round 2 of 10" in line(policy)
        out = Console(width=100, record=True, file=io.StringIO())
        out.print(panel(policy))
        text = out.export_text()
        for part in ("16 of 32, round 2 of 10", "loss PAP (5 functions)", "rpn PAP (I1)"):
            assert part in text
        assert "bbox" not in text

    def test_a_line(self):
        text = line(self.PROGRESS)
        for part in ("trials 5/23, 9 running", "32502 drawn > 16 verified", "best 44.1", "12 min"):
            assert part in text

    def test_a_panel(self):
        out = Console(width=100, record=True, file=io.StringIO(), force_terminal=True)
        out.print(panel(self.PROGRESS))
        text = out.export_text()
        for part in ("32,502 drawn", "16 of 32", "5 of 23", "about 12 min left", "and 3 more"):
            assert part in text
        assert "[red]Neg(X)" in text  # shown, not obeyed

    def test_no_room_for_a_trial_is_said(self):
        waiting = replace(self.PROGRESS, waiting_for="a node with 1 CPUs, 1 GPUs")
        assert "trials 5/23, waiting for a node with 1 CPUs, 1 GPUs" in line(waiting)
        out = Console(width=100, record=True, file=io.StringIO())
        out.print(panel(waiting))
        assert "for a node with 1 CPUs, 1 GPUs" in out.export_text()
        assert "candidate 0 proxy seed 0" not in out.export_text()

    def test_before_anything_is_known(self):
        unknown = {"baseline": None, "best": None, "seconds_left": None}
        empty = replace(self.PROGRESS, **unknown, running=(), done=0, trials=0)
        assert "0/0" in line(empty)
        Console(width=60, file=io.StringIO()).print(panel(empty))

    def test_lines_where_there_is_no_terminal(self, capsys):
        with watched(stderr=True) as observer:
            for done in (0, 0, 0, 1):
                observer(replace(self.PROGRESS, done=done))
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 2


class TestConclusion:
    def test_says_what_a_best_is_worth(self, store):
        best = leaderboard_row(store, "first-1", 2)
        assert best_line(best, 2) == (
            "best: candidate 2 with AP 50.5, +10.0 ±0.0 to the baseline over 2 seeds; "
            "unconfirmed: the best of 2 trained, on the seeds that chose it"
        )

    def test_of_a_whole_run(self, store, capsys):
        store.set_job_state("first-1", "running")
        store.set_job_state("first-1", "failed", "no candidate came to a fitness")
        assert _conclude(store, "first-1", stopped=False, as_json=False) == 1
        shown = capsys.readouterr().out
        assert shown.startswith("job first-1 is failed: no candidate came to a fitness\n")
        assert "unconfirmed: the best of 2 trained" in shown
        _conclude(store, "first-1", stopped=False, as_json=True)
        assert read(capsys.readouterr().out)["best"]["difference"]["seeds"] == 2


def test_spans_of_time():
    spans = [duration(seconds) for seconds in (None, 0, 59, 750, 7200, 200_000)]
    assert spans == ["-", "0 s", "59 s", "12 min", "2.0 h", "2.3 d"]


def test_json_of_anything():
    data = {"a": float("nan"), "b": (1, Path("/x")), 3: {True}}
    assert jsonable(data) == {"a": None, "b": [1, "/x"], "3": [True]}


SPEC = """
name: tiny
detector: digits/%s
branches: {cls: {space: %s}, bbox: {space: box}}
searcher: {population: 2, parents: 1, named: [%s]}
funnel:
  simulate: {steps: 2, keep: 1, batch_size: 2}
  proxy: {steps: 2, batch_size: 2, seeds: [0]}
candidates: 4
window: 2
resources: {device: cpu}
"""


def interrupt_a_search(spec, store, own_home):
    """Starts a search in a process of its own, and presses Ctrl-C when a trial has ended."""
    environment = {
        **os.environ,
        "LOSSFORGE_STORE": str(store),
        "LOSSFORGE_HOME": str(own_home),
        "RAY_AUTH_MODE": "disabled",  # a token would be written to the user's home
    }
    with subprocess.Popen(
        [*COMMAND, "search", str(spec), "--slots", "1"],
        cwd=spec.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for text in process.stdout:
            if re.search(r"trials [1-9]\d*/", text):
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.communicate(timeout=240)
    assert process.returncode == 130, rest + errors
    assert "lossforge resume tiny-1" in rest
    assert "Traceback" not in errors


def ended_trials(store):
    """All rows of trials that have ended, times included, by candidate, stage and seed."""
    with Store.open(str(store)) as opened:
        trials = opened.trials("tiny-1")
    return {(t.candidate, t.stage, t.seed): t for t in trials if t.state != "running"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "space", "named", "interrupted"),
    [
        ("atss", "binary_cls", "cse-autoloss-b", True),
        ("faster_rcnn", "multi_cls", "cse-autoloss-a", False),
    ],
)
def test_a_search_from_spec_to_export(
    own_home, tmp_path, call, detector, space, named, interrupted
):
    """search, Ctrl-C, resume, and all that reads; with real trainings of two steps."""
    spec, file = tmp_path / "spec.yaml", tmp_path / "store.db"
    spec.write_text(SPEC % (detector, space, named))
    store, inline = ("--store", file), ("--slots", "1", "--address", "none", "--json")
    if interrupted:
        interrupt_a_search(spec, file, own_home)
        assert read(call("jobs", "--json", *store).out)["jobs"][0]["state"] == "interrupted"
        before = ended_trials(file)
        assert before
        searched = call("resume", "tiny-1", *inline, *store)
    else:
        before = {}
        searched = call("search", spec, *inline, *store)
    assert searched.code == 0, searched.err
    assert read(searched.out)["state"] == "done"
    after = ended_trials(file)
    assert {key: after.get(key) for key in before} == before  # none was trained again
    assert len(after) > len(before)
    assert {key[1] for key in after} == {"simulate", "proxy"}
    assert {trial.state for trial in after.values()} <= {"done", "diverged"}

    rows = read(call("leaderboard", "tiny-1", "--json", *store).out)["groups"][0]["rows"]
    assert len(rows) == 5
    assert sum(row["rank"] is not None for row in rows) >= 2
    exported = call("export", "tiny-1", "-o", tmp_path / "best.py", "--json", *store)
    assert exported.code == 0, exported.err
    assert (tmp_path / "best.py").is_file()
    again = call("export", "tiny-1", "-o", tmp_path / "best.py", *store)
    assert again.code == 2
    assert "--force" in again.err
    assert call("report", "tiny-1", "-o", tmp_path / "r.png", *store).code == 0
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("loss", "given", "expected", "name"),
    [
        (None, None, False, "bbox-cse-autoloss-b"),
        (None, True, True, "bbox-cse-autoloss-b-iou-centerness"),
        (None, False, False, "bbox-cse-autoloss-b"),
        ("cse-autoloss-b", None, True, "cse-autoloss-b-bbox-cse-autoloss-b"),
        ("cse-autoloss-b", False, False, "cse-autoloss-b-bbox-cse-autoloss-b-own-centerness"),
    ],
)
def test_iou_centerness_is_said_or_as_the_loss_says(loss, given, expected, name):
    from search_server.loss_choice import choose_loss

    chosen = choose_loss("digits/atss", loss, None, "cse-autoloss-b", given)
    assert (chosen.iou_centerness, chosen.name) == (expected, name)
    assert chosen.bbox == CATALOG["cse-autoloss-b"].bbox


@pytest.mark.slow
def test_training_with_one_branch_replaced(own_home, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "digits/atss", "--steps", "2", "--batch-size", "2", "--threads", "1"]
    trained = call(*arguments, "--loss-bbox", "Neg(Div(I,U))", "--iou-centerness", "--json")
    assert trained.code == 0, trained.err
    found = read(trained.out)
    assert found["loss"]["cls"] is None
    assert found["loss"]["bbox"]["expression"] == "Neg(Div(I,U))"
    assert found["loss"]["iou_centerness"] is True
    assert 0 <= found["fitness"] <= 1
    assert Path(found["checkpoint"]).is_file()
    assert "step 2/2" in trained.err


@pytest.mark.slow
def test_training_a_users_config_on_its_own_data(own_home, tmp_path, call):
    from workers import load_detector
    from workers.data import digits

    config = tmp_path / "mine.py"
    text = load_detector(configs_dir() / "detectors" / "digits" / "faster_rcnn.py")
    config.write_text(text.replace("data/digits-v1/", f"{digits().root}/"))
    arguments = ["--steps", "2", "--loss", "cse-autoloss-a", "--seed", "3", "--threads", "1"]
    trained = call("train", config, *arguments, "--work-dir", tmp_path / "out", "--json")
    assert trained.code == 0, trained.err
    found = read(trained.out)
    assert found["loss"]["name"] == "cse-autoloss-a"
    assert 0 <= found["fitness"] <= 1
    assert found["checkpoint"] == str(tmp_path / "out" / "iter_2.pth")
    refused = call("train", config, "--batch-size", "2")
    assert refused.code == 2
    assert "--batch-size goes with --data" in refused.err


class TestTrainErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nope.py"], "is no file; give an mmdet config, or one of .*digits/atss"),
            (["digits/atss", "--loss-cls", "focall"], "no loss is named 'focall'.*focal-giou"),
            (["digits/atss", "--loss-cls", "Neg(Z)"], "unknown input 'Z'"),
            (["digits/atss", "--loss-bbox", "Neg("], "position 4"),
            (["digits/atss", "--loss", "nope.json"], "cannot read nope.json"),
            (["digits/retinanet", "--iou-centerness", "--steps", "1"], "has no centerness"),
            (["digits/atss", "--data", "/nowhere"], "is not a folder"),
            (["digits/atss", "--steps", "0"], "greater than or equal to 1"),
        ],
    )
    def test_are_one_line(self, call, arguments, message):
        shown = call("train", *arguments)
        assert shown.code == 2
        assert re.search(message, " ".join(shown.err.split()))
        assert "Traceback" not in shown.err
