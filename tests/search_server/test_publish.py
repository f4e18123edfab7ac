"""Publishing: one reading of `test` per row, from seeds that are fixed before it begins."""

import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from losses.catalog import read_definition
from search_server.cli import run as command
from search_server.errors import ExportError, JobError
from search_server.executors import InlineExecutor
from search_server.export.evidence import write_published
from search_server.publish import (
    ReadTrial,
    prepare_publication,
    read_out,
    run_publication,
)
from search_server.stage_seeds import publish_seeds
from search_server.store import NoiseFloor, Store
from workers import TrialResult, TrialSpec
from workers.data import digits

_spec = importlib.util.spec_from_file_location(
    "confirm_tests", Path(__file__).with_name("test_confirm.py")
)
assert _spec is not None
assert _spec.loader is not None
searches: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(searches)
fake, QUICK, worth = searches.fake, searches.QUICK, searches.worth
TESTED = publish_seeds(fake.spec(**QUICK), 12)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def job(url: str) -> str:
    """A search that is done: candidates 5 and 3 are confirmed, row 9 is the rival."""
    job_id: str = fake.new_job(url, **QUICK)
    assert searches.run(url, job_id) == "done"
    return job_id


def _publish(url: str, job: str, trial: Any = worth, **more: Any) -> Any:
    """Publishes with a formula in the place of trainings; what was read."""
    stop, say = more.pop("stop", None), more.pop("say", None)
    with Store.open(url) as store, InlineExecutor(2, trial) as executor:
        publication = prepare_publication(store, job, **more)
        run_publication(store, publication, executor, say, stop)
        return publication, read_out(store, publication)


def test_the_row_the_baseline_and_the_rivals_are_read_from_fresh_seeds(url: str, job: str) -> None:
    specs: list[TrialSpec] = []
    said: list[ReadTrial] = []

    def trial(spec: TrialSpec) -> TrialResult:
        specs.append(spec)
        return worth(spec)

    publication, found = _publish(url, job, trial, seeds=3, say=said.append)
    assert publication.row.index == 5
    assert publication.seeds == TESTED[:3]
    assert {(s.seed, s.steps, s.batch_size) for s in specs} == {(seed, 9, 2) for seed in TESTED[:3]}
    assert {s.evaluate for s in specs} == {digits().splits["test"]}
    assert {s.train for s in specs} == {digits().splits["search_train"]}
    assert sorted(s.definition["name"] for s in specs) == sorted(
        ["candidate-5", "default", "focal-ciou"] * 3
    )
    assert [each.candidate.index for each in found.against] == [0, 9]
    assert [each.difference.mean for each in found.against] == pytest.approx([0.2, 0.1])
    assert found.ap == pytest.approx(dict(zip(TESTED[:3], (0.45, 0.451, 0.452), strict=True)))
    assert (found.missing, found.lost) == (0, 0)
    assert [(s.done, s.of) for s in said] == [(n, 9) for n in range(1, 10)]
    with Store.open(url) as store:
        assert store.job(job).state == "done"


def test_a_second_reading_is_the_first_one(url: str, job: str) -> None:
    _, first = _publish(url, job, seeds=3)

    def never(spec: TrialSpec) -> TrialResult:
        raise AssertionError("nothing is trained")

    again, found = _publish(url, job, never, seeds=7)
    assert again.fixed
    assert again.seeds == TESTED[:3]
    assert found == first


def test_another_row_shares_the_readings_of_the_baseline(url: str, job: str) -> None:
    _publish(url, job, seeds=2)
    specs: list[TrialSpec] = []

    def trial(spec: TrialSpec) -> TrialResult:
        specs.append(spec)
        return worth(spec)

    _, found = _publish(url, job, trial, wanted=3, seeds=3)
    names = sorted(s.definition["name"] for s in specs)
    assert names == ["candidate-3"] * 3 + ["default", "focal-ciou"]
    assert {s.seed for s in specs if s.definition["name"] == "default"} == {TESTED[2]}
    assert found.against[0].difference is not None
    assert found.against[0].difference.count == 3
    _, first = _publish(url, job, wanted=5)
    assert first.against[0].difference is not None
    assert first.against[0].difference.count == 2  # its own seeds, whatever came later


def test_stopped_anywhere_it_goes_on_with_the_same_seeds(url: str, job: str) -> None:
    for more in (1, 3):
        stop = threading.Event()
        seen: list[ReadTrial] = []

        def say(
            ended: ReadTrial,
            seen: list[ReadTrial] = seen,
            stop: threading.Event = stop,
            more: int = more,
        ) -> None:
            seen.append(ended)
            if len(seen) >= more:
                stop.set()

        publication, found = _publish(url, job, seeds=4, say=say, stop=stop)
        assert found.missing > 0
        assert publication.seeds == TESTED[:4]
    publication, found = _publish(url, job, seeds=9)
    assert publication.seeds == TESTED[:4]
    assert found.missing == 0


def test_a_lost_trial_does_not_count_and_is_not_repeated(url: str, job: str) -> None:
    def trial(spec: TrialSpec) -> TrialResult:
        if spec.seed == TESTED[1] and spec.definition["name"] == "candidate-5":
            return TrialResult("failed", "no luck", None, spec.seed, spec.steps)
        return worth(spec)

    _, found = _publish(url, job, trial, seeds=3)
    assert (found.missing, found.lost) == (0, 1)
    assert set(found.ap) == {TESTED[0], TESTED[2]}
    assert found.against[0].difference.count == 2


def test_what_cannot_be_published(url: str, job: str, tmp_path: Path) -> None:
    with Store.open(url) as store:
        for wanted, why in (("baseline", "baseline"), (9, "rival"), (1, "not confirmed")):
            with pytest.raises(JobError, match=why):
                prepare_publication(store, job, wanted)
        with pytest.raises(ExportError, match="no candidate 77"):
            prepare_publication(store, job, 77)
        with pytest.raises(JobError, match="at least 2"):
            prepare_publication(store, job, seeds=1)
        assert not prepare_publication(store, job, 1, unconfirmed=True).confirmed
        splits = {
            name: {"annotations": split.annotations, "images": split.images}
            for name, split in digits().splits.items()
            if name != "test"
        }
        untested = fake.new_job(url, **QUICK, data=splits)
        with pytest.raises(JobError, match="is created"):
            prepare_publication(store, untested)
        assert searches.run(url, untested) == "done"
        with pytest.raises(JobError, match=r"data\.test"):
            prepare_publication(store, untested)


def test_only_one_process_reads(url: str, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(url) as store:
        publication = prepare_publication(store, job, seeds=2)
        store.hold_job(job)
        monkeypatch.setattr("search_server.store.owner.alive", lambda owner: owner is not None)
        with InlineExecutor(1, worth) as executor, pytest.raises(JobError, match="by process"):
            run_publication(store, publication, executor)
        assert not [t for t in store.trials(job) if t.stage == "test"]
        monkeypatch.undo()
        store.release_job(job)
        store.hold_job(job)
        store.release_job(job)


def test_the_same_trial_of_another_job_is_not_trained_again(url: str, job: str) -> None:
    _publish(url, job, seeds=2)
    other = fake.new_job(url, **QUICK)
    assert searches.run(url, other) == "done"

    def never(spec: TrialSpec) -> TrialResult:
        raise AssertionError("nothing is trained")

    _, found = _publish(url, other, never, seeds=2)
    assert found.missing == 0
    with Store.open(url) as store:
        reused = [t.reused_from for t in store.trials(other) if t.stage == "test"]
    assert f"{job}:5:test:{TESTED[0]}" in reused


def test_the_command_shows_a_recorded_reading(
    url: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _publish(url, job, seeds=3)
    assert command(["publish", f"{job}:5", "--store", url, "--seeds", "8"]) == 0
    shown = capsys.readouterr()
    assert "as recorded" in shown.out
    assert "+20.00" in shown.out
    assert "focal-ciou" in shown.out
    assert "its 3 seeds were fixed" in shown.err
    assert command(["publish", job, "--store", url, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["recorded"] is True
    assert data["seeds"] == list(TESTED[:3])
    assert [each["origin"] for each in data["against"]] == ["baseline", "rival"]
    assert data["against"][0]["difference"]["mean"] == pytest.approx(0.2)
    assert command(["publish", f"{job}:1", "--store", url]) == 2
    assert "--unconfirmed" in capsys.readouterr().err


def test_the_command_trains_and_hints_at_the_seeds(
    url: str,
    job: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from search_server.executors import choice
    from search_server.funnel.outcomes import TrialKey
    from search_server.jobs import open_job
    from search_server.leaderboard import trial_group

    monkeypatch.setattr(choice, "InlineExecutor", lambda slots: InlineExecutor(slots, worth))
    with Store.open(url) as store:
        group = trial_group(open_job(store, job).trial(TrialKey(0, "confirm", 0), {}))
        store.add_noise_floor(NoiseFloor(group, 8, 0.3, 0.1, 0.1, 7, []))
    assert command(["publish", job, "--store", url, "--address", "none", "--seeds", "2"]) == 0
    shown = capsys.readouterr()
    assert "read now" in shown.out
    assert "6/6" in shown.err
    assert "a gain of 20.00 AP needs 5" in shown.err


def test_a_published_loss_is_kept_with_its_evidence(
    url: str, job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publication, found = _publish(url, job, seeds=3)
    path = tmp_path / "new" / "found.json"
    again = ["publish", job, "--store", url, "--keep", str(path)]
    assert command(again) == 0
    kept = read_definition(path)
    assert kept.name == "found"
    assert kept.key == publication.row.key
    evidence = json.loads((tmp_path / "new" / "found.evidence.json").read_text())
    assert evidence["spec"]["name"] == "fake"
    assert (evidence["job"], evidence["candidate"]) == (job, 5)
    test = {
        (t["candidate"], t["seed"]): t["ap"] for t in evidence["trials"] if t["stage"] == "test"
    }
    assert test == pytest.approx(
        {(5, s): ap for s, ap in found.ap.items()}
        | {(o.candidate.index, s): ap for o in found.against for s, ap in o.ap.items()}
    )
    confirm = {(t["candidate"], t["seed"]) for t in evidence["trials"] if t["stage"] == "confirm"}
    assert len(confirm) == 12  # the row, the baseline, the rival, and what else was confirmed
    assert [each["candidate"] for each in evidence["confirm"]] == [3, 5, 9]
    assert [each["family"] for each in evidence["confirm"]] == [2, 2, 0]
    assert {each["candidate"] for each in evidence["losses"]} == {0, 3, 5, 9}
    assert [each["mean_difference"] for each in evidence["test"]] == pytest.approx([0.2, 0.1])
    assert sum(each["count"] for each in evidence["draws"]) >= 8
    capsys.readouterr()
    assert command(again) == 2
    assert "found.json is there already; --force replaces it" in capsys.readouterr().err
    assert command([*again, "--force"]) == 0


@pytest.mark.parametrize(
    ("name", "problem"), [("x.txt", "ends in .json"), ("x.evidence.json", "not in .evidence.json")]
)
def test_a_loss_is_kept_under_a_usable_name(
    url: str, job: str, tmp_path: Path, name: str, problem: str
) -> None:
    publication, found = _publish(url, job, seeds=2)
    with Store.open(url) as store, pytest.raises(ExportError, match=problem):
        write_published(store, publication, found, tmp_path / name)


def test_a_half_read_loss_is_not_kept(url: str, job: str, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    publication, found = _publish(url, job, seeds=2, stop=stop)
    assert found.missing
    with Store.open(url) as store, pytest.raises(ExportError, match="publish to the end"):
        write_published(store, publication, found, tmp_path / "x.json")
