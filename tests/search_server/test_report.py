"""The report: its numbers, its curves, and that it is drawn for a job in any state."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest

from losses import CATALOG, LossDefinition, PapFunctions, RankingBranch, configs_dir
from search_server.errors import JobError
from search_server.problem import problem_of
from search_server.report import report
from search_server.report.curves import SHIFTS, loss_curves, ranking_curves
from search_server.report.draw import draw
from search_server.report.headline import result_sentence
from search_server.report.paths import GAPS
from search_server.report.records import gather
from search_server.report.style import RC
from search_server.searchers import generator, make_searcher
from search_server.searchers.base import Observation
from search_server.seed_statistics import paired_difference, spread
from search_server.spec import parse_spec
from search_server.store import CandidateRecord, Store, models
from workers import TrialResult, load_detector

NASTY = 'a $\\frac$ "name"\nwith {{ braces }} and % _ ^ that is much longer than the page is wide'


def result(fitness: float, status: str = "done") -> TrialResult:
    return TrialResult(
        status=status, reason="", fitness=fitness if status == "done" else None, metrics={},
        curves={}, seconds={}, seed=0, steps=1, versions={},
    )  # fmt: skip


def detector(name: str) -> str:
    return load_detector(configs_dir() / "detectors" / "digits" / f"{name}.py")


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(str(tmp_path / "store.db")) as opened:
        yield opened


def search(store: Store, name: str = "a search", losses: tuple[str, ...] = ()) -> str:
    """A job with the detector's own losses as baseline, and a candidate for each named loss."""
    job = store.create_job(name, {"detector": "digits/atss"}, detector("atss"), ["a"])
    for index, loss in enumerate(("default", *losses)):
        definition = CATALOG[loss]
        store.add_candidate(
            job,
            CandidateRecord(
                index, "baseline" if index == 0 else "named", (), definition.to_json(),
                definition.key, stage="proxy", simulate_score=0.1 if index else None,
            ),
            {("named", "accepted"): 1, ("random", "monotone"): 40} if index else {},
        )  # fmt: skip
    return job


def train(store: Store, job: str, index: int, *fitness: float | None) -> None:
    """Ends a proxy trial per seed; None stands for one that diverged."""
    for seed, value in enumerate(fitness):
        store.start_trial(job, index, "proxy", seed, "key")
        status = "diverged" if value is None else "done"
        store.finish_trial(job, index, "proxy", seed, result(value or 0.0, status))
    store.update_candidate(
        job, index, state="done", fitness=float(np.mean([value or 0.0 for value in fitness]))
    )


def test_statistics() -> None:
    own, base = {1: 0.5, 2: 0.7, 9: 0.1}, {1: 0.4, 2: 0.5, 3: 0.9}
    paired = paired_difference(own, base)
    assert paired.seeds == (1, 2)
    assert paired.mean == pytest.approx(0.15)
    assert paired.deviation == pytest.approx(np.std([0.1, 0.2], ddof=1))
    assert paired.text(signed=True) == "+15.0 ± 7.1"
    assert spread({4: 0.25}).text() == "25.0"
    assert spread({}).text() == "none"


def test_findings_of_a_search(store: Store) -> None:
    job = search(store, losses=("focal-giou", "cse-autoloss-b", "vfl-giou"))
    train(store, job, 0, 0.40, 0.42)
    train(store, job, 1, 0.50, 0.30)
    train(store, job, 2, 0.44, 0.45)
    train(store, job, 3, 0.60, None)
    found = gather(store, job)
    assert found.best is not None
    assert found.best.index == 2
    assert found.trained == 3
    assert [(s.position, s.candidate) for s in found.steps] == [(4, 1), (6, 2)]
    assert [d.fitness for d in found.dots][-2:] == [0.60, 0.0]
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(0.035)
    assert found.funnel["drawn"] == {"named": 3, "random": 120}
    assert found.funnel["verified"] == {"named": 3}
    assert found.funnel["proxy"] == {"named": 3}
    text = result_sentence(found)
    assert "Best of 3 trained: candidate 2 (named), AP 44.5 ± 0.7 over 2 seeds" in text
    assert "difference +3.5 ± 0.7, paired over 2 seeds" in text


@pytest.mark.parametrize("state", ["empty", "baseline", "one", "all"])
def test_a_job_in_any_state_is_drawn(store: Store, tmp_path: Path, state: str) -> None:
    if state == "empty":
        job = store.create_job(NASTY, {}, "", ["a"])
    else:
        job = search(store, NASTY, ("cse-autoloss-b", "focal-giou"))
    if state != "empty":
        train(store, job, 0, 0.4)
    if state in ("one", "all"):
        train(store, job, 1, 0.45)
    if state == "all":
        train(store, job, 2, None)
    path = report(store, job, tmp_path / "new" / "report.png")
    picture = matplotlib.image.imread(path)
    assert picture.shape[1] > 1500
    colours = np.ascontiguousarray((picture * 255).round().astype(np.uint8)).view(np.uint32)
    assert len(np.unique(colours)) > 50


def test_texts_lie_inside_the_page_and_apart(store: Store) -> None:
    job = search(store, "x" * 90, ("cse-autoloss-b", "focal-giou"))
    train(store, job, 0, 0.40, 0.41, 0.44)
    train(store, job, 1, 0.45, 0.47, 0.43)
    figure = draw(gather(store, job))
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    headline = [t.get_window_extent(renderer) for t in figure.axes[0].texts]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in headline)
    for index, box in enumerate(headline):
        assert not any(box.overlaps(other) for other in headline[index + 1 :])
    titles = [a.title.get_window_extent(renderer) for a in figure.axes]
    titles += [a._left_title.get_window_extent(renderer) for a in figure.axes]
    titles = [box for box in titles if box.width > 1]
    for index, box in enumerate(titles):
        assert not any(box.overlaps(other) for other in titles[index + 1 :])


def judge(store: Store, job: str, index: int, stage: str, *fitness: float) -> None:
    """Ends a trial of a judging stage per seed."""
    for seed, value in enumerate(fitness, 1000 if stage == "confirm" else 2000):
        store.start_trial(job, index, stage, seed, "key")
        store.finish_trial(job, index, stage, seed, result(value))


def judged_search(store: Store) -> str:
    """A search whose best by fitness is not the best on fresh seeds; a rival; rungs, one stop."""
    job = search(store, losses=("cse-autoloss-b", "focal-expression", "vfl-giou"))
    train(store, job, 0, 0.40, 0.42)
    train(store, job, 1, 0.50, 0.50)
    train(store, job, 2, 0.45, 0.44)
    rival = CATALOG["focal-iou"]
    record = CandidateRecord(
        4, "rival", (), rival.to_json(), rival.key, name="a rival", stage="confirm"
    )
    store.add_candidate(job, record)
    store.update_candidate(job, 4, state="done")
    judge(store, job, 0, "confirm", 0.40, 0.42, 0.41)
    judge(store, job, 1, "confirm", 0.41, 0.42, 0.42)
    judge(store, job, 2, "confirm", 0.43, 0.46, 0.44)
    judge(store, job, 4, "confirm", 0.42, 0.44, 0.43)
    judge(store, job, 0, "test", 0.40, 0.41)
    judge(store, job, 2, "test", 0.42, 0.44)
    store.start_trial(job, 3, "proxy", 0, "key")
    with store.changing() as session:
        for index in range(4):
            row = session.get(models.Trial, (job, index, "proxy", 0))
            row.rungs = {"10": 0.1 * index, "20": 0.1 + 0.1 * index}
        for index, size in ((1, 9), (2, 5)):
            session.get(models.Candidate, (job, index)).size = size
    store.update_candidate(job, 3, state="dropped", reason="rung 20")
    return job


def test_findings_of_what_was_confirmed(store: Store) -> None:
    found = gather(store, judged_search(store))
    assert [(each.index, each.rival) for each in found.confirmed] == [
        (2, False), (4, True), (1, False),
    ]  # fmt: skip
    first = found.confirmed[0]
    assert first.difference.mean == pytest.approx(np.mean([0.03, 0.04, 0.03]))
    assert first.test is not None
    assert first.test.mean == pytest.approx(0.025)
    assert found.best is not None
    assert found.best.index == 2, "not the best of the proxy task, which owes that to luck"
    front = {each.index: (each.size, each.front, each.confirmed) for each in found.sizes}
    assert front == {0: (0, True, False), 2: (5, True, True), 1: (9, True, True)}
    curves = {each.index: each for each in found.curves}
    assert curves[1].points == ((10, 0.1), (20, 0.2))
    assert [curve.stopped for curve in found.curves] == [False, False, False, True]
    assert "rival" not in found.funnel["proxy"]
    text = result_sentence(found)
    assert text.startswith("Best confirmed: candidate 2, named, AP to the baseline +3.3 (")
    assert "over 3 seeds" in text
    assert "on test +2.5 over 2 seeds" in text


def test_another_candidate_than_the_best_is_shown(store: Store) -> None:
    job = judged_search(store)
    found = gather(store, job, 1)
    assert found.shown == store.candidate(job, 1).definition
    assert found.shown_name == "candidate 1"
    assert result_sentence(found).startswith("Confirmed: candidate 1, ")
    with pytest.raises(JobError, match=f"{job}:3 was not trained to the end"):
        gather(store, job, 3)


def test_the_second_row_is_drawn(store: Store, tmp_path: Path) -> None:
    job = judged_search(store)
    with mpl.rc_context(dict(RC)):
        figure = draw(gather(store, job))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    wanted = ["Confirmed: AP minus the baseline's", "AP against size", "AP over the rungs"]
    assert [title for title in titles if title in wanted] == wanted
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    panels = [axes for axes in figure.axes if axes.get_title(loc="left") in wanted]
    boxes = [axes.get_tightbbox(renderer) for axes in panels]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
    assert report(store, job, tmp_path / "r.png").stat().st_size > 10_000


def test_curves_are_those_of_the_losses() -> None:
    none = {"name": "none", "cls": None, "bbox": None, "iou_centerness": False}
    own = loss_curves(detector("atss"), none)
    iou = (1 - SHIFTS) / (1 + SHIFTS)
    giou = np.where(SHIFTS < 1, iou, -(SHIFTS - 1) / (SHIFTS + 1))
    np.testing.assert_allclose(own.box.value, 2.0 * (1 - giou), rtol=1e-5, atol=1e-5)
    searched = loss_curves(detector("atss"), CATALOG["focal-expression"].to_json())
    np.testing.assert_allclose(searched.positive.value, own.positive.value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(searched.negative.gradient, own.negative.gradient, atol=1e-4)
    two_stage = loss_curves(detector("faster_rcnn"), none)
    x = two_stage.positive.x
    np.testing.assert_allclose(two_stage.positive.value, np.logaddexp(0, -x), atol=1e-6)
    np.testing.assert_allclose(two_stage.box.value, SHIFTS / 0.1, rtol=1e-5)


def test_a_detector_that_no_longer_builds_still_gets_its_report(
    store: Store, tmp_path: Path
) -> None:
    job = store.create_job("broken", {}, "model = dict(type='Gone')", ["a"])
    loss = CATALOG["cse-autoloss-b"]
    for index, origin in enumerate(("baseline", "random")):
        key = f"k{index}"
        store.add_candidate(
            job, CandidateRecord(index, origin, (), loss.to_json(), key, stage="proxy")
        )
        train(store, job, index, 0.4)
    assert report(store, job, tmp_path / "r.png").stat().st_size > 10_000


def test_order_is_that_of_the_ends(store: Store) -> None:
    job = search(store, losses=("focal-giou",))
    train(store, job, 0, 0.4)
    train(store, job, 1, 0.5)
    trials = store.trials(job)
    late = replace(trials[0], finished_at=datetime.now(UTC) + timedelta(days=1))

    class Late:
        def __getattr__(self, name: str):
            return getattr(store, name)

        def trials(self, job_id: str):
            return [late, *trials[1:]]

    found = gather(Late(), job)  # type: ignore[arg-type]
    assert [dot.candidate for dot in found.dots] == [1, 0]


def giou(shift: np.ndarray) -> np.ndarray:
    """Of two equal squares, `shift` widths apart."""
    return np.where(shift < 1, (1 - shift) / (1 + shift), -(shift - 1) / (shift + 1))


def test_curves_of_the_identity_pap_are_the_closed_form() -> None:
    """One object, one background: d / (0.5 + d), with d the scaled step, and 1 - u^2 of the box."""
    branch = RankingBranch("pap", functions=PapFunctions.identity(), box_gradient_scale=3.0)
    curves = ranking_curves(branch)
    step = np.clip(0.5 - GAPS / 2, 0, 1)
    np.testing.assert_allclose(curves.positive.value, step / (0.5 + step), atol=1e-6)
    inside = np.abs(GAPS) < 0.99
    # the denominator passes no gradient on
    np.testing.assert_allclose(
        curves.positive.gradient[inside], (-0.5 / (0.5 + step))[inside], atol=1e-6
    )
    np.testing.assert_allclose(curves.negative.gradient, -curves.positive.gradient, atol=1e-6)
    assert not curves.positive.gradient[np.abs(GAPS) > 1.01].any(), "saturated"
    overlap = (giou(SHIFTS) + 1) / 2
    np.testing.assert_allclose(curves.box.value, 1 - overlap**2, atol=1e-6)
    slope = np.gradient(1 - overlap**2, SHIFTS)
    smooth = np.abs(SHIFTS - 1) > 0.03
    np.testing.assert_allclose(
        curves.box.gradient[smooth][1:-1], 3 * slope[smooth][1:-1], rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("loss", ["ap", "alrp", "rank_sort"])
def test_curves_of_the_error_driven_losses(loss: str) -> None:
    branch = RankingBranch(loss, delta=0.5)
    curves = ranking_curves(branch) if branch.has_box_loss else None
    if curves is None:
        curves = loss_curves(detector("retinanet"), CATALOG["ap-l1"].to_json())
        assert CATALOG["ap-l1"].cls == RankingBranch("ap", delta=1.0)
        step, own = np.clip(0.5 - GAPS / 2, 0, 1), 1.0
        np.testing.assert_allclose(curves.box.value, SHIFTS / 0.1, rtol=1e-5)  # of deltas
    else:
        step, own = np.clip(0.5 - GAPS, 0, 1), 1.0 if loss == "alrp" else 0.5
        np.testing.assert_allclose(curves.box.value, 1 - giou(SHIFTS), atol=1e-6)
    np.testing.assert_allclose(curves.positive.value, step / (own + step), atol=1e-5)
    assert (curves.positive.gradient <= 0).all()
    assert (curves.negative.gradient >= 0).all()
    assert curves.positive.gradient[0] < 0, "no saturation"


def policy_search(
    store: Store, fitness: list[float | None], *, two: bool = False, scale: bool = True
) -> str:
    """A policy search of 3 rounds x 3 samples with the given fitness by index, the baseline first;
    None stands for a failed candidate."""
    space = f"{{space: pap, points: 2, gradient_scale: {str(scale).lower()}}}"
    name = "faster_rcnn" if two else "retinanet"
    spec = parse_spec(
        f"{{name: policy, detector: digits/{name}, branches: {{cls: {space}"
        + (f", rpn: {space}" if two else "")
        + "}, baseline: pap-identity, searcher: {type: policy, rounds: 3, samples: 3},"
        " funnel: {simulate: null, proxy: {seeds: [0, 1]}}}"
    )
    problem = problem_of(spec)
    searcher = make_searcher(spec.searcher, problem)
    job = store.create_job("policy", spec.to_json(), detector(name), ["a"])
    for index, value in enumerate(fitness):
        if index == 0:
            origin, definition = "baseline", CATALOG["pap-identity"]
        else:
            proposal = next(searcher.ask(index, generator(spec.seed, index)))
            origin, definition = proposal.origin, proposal.start
        record = CandidateRecord(
            index, origin, (), definition.to_json(), definition.key, stage="proxy"
        )
        store.add_candidate(job, record)
        if value is None:
            store.update_candidate(job, index, state="failed", reason="lost")
        else:
            train(store, job, index, value, value + 0.01 if value else None)
        seen = None if value is None else value + 0.005 if value else 0.0
        searcher.tell(Observation(index, LossDefinition("x"), {}, seen, None))
    return job


REWARDS = [0.30, 0.31, 0.0, 0.28, 0.33, None, 0.35, 0.36, 0.34, 0.38, 0.40]


def test_findings_of_a_policy_search(store: Store) -> None:
    found = gather(store, policy_search(store, REWARDS))
    assert found.policy is not None
    assert [sample.round for sample in found.policy.samples] == [1, 1, 1, 2, 2, 3, 3, 3]
    assert found.policy.round_means[1] == pytest.approx((0.315 + 0.0 + 0.285) / 3)
    assert found.policy.round_means[2] == pytest.approx((0.335 + 0.355) / 2)
    assert found.answer is not None
    assert (found.answer.index, found.answer.origin) == (10, "mean")
    # told the same results again, a new searcher comes to the very mean that was trained
    last = {name: branch.to_json() for name, branch in found.policy.means[-1].items()}
    assert last["cls"] == found.answer.definition["cls"]
    assert len(found.policy.means) == 4
    first = found.policy.means[0]["cls"]
    assert first.box_gradient_scale == pytest.approx(1.0)
    text = result_sentence(found)
    assert "Final mean after 3 rounds of 3: AP 40.5 ± 0.7 over 2 seeds" in text
    assert "difference +10.0 ± 0.0, paired over 2 seeds" in text
    assert "best sample: candidate 9, AP 38.5" in text


@pytest.mark.parametrize(
    "settings", [{}, {"two": True}, {"scale": False}], ids=["one", "two stages", "no scale"]
)
@pytest.mark.parametrize("ended", [0, 1, 3, 6, 11])
def test_a_policy_search_is_drawn_at_any_time(
    store: Store, tmp_path: Path, ended: int, settings: dict[str, bool]
) -> None:
    job = policy_search(store, REWARDS[:ended], **settings)
    found = gather(store, job)
    assert found.policy is not None
    assert found.policy.complete == max(0, (ended - 1) // 3)
    assert ("Final mean" in result_sentence(found)) == (ended == 11)
    if ended == 11:
        assert report(store, job, tmp_path / "r.png").stat().st_size > 10_000
    figure = draw(found)
    titles = [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes]
    assert {"Reward by round", "Box gradient scale"} <= set(titles)
    rows = sum("f_{I3}" in title for title in titles)
    assert rows == (0 if ended < 2 else 2 if settings.get("two") else 1)


def test_a_policy_search_of_another_version_keeps_its_report(store: Store) -> None:
    job = policy_search(store, REWARDS)
    found = gather(store, job)

    class Later:
        def __getattr__(self, name: str):
            return getattr(store, name)

        def job(self, job_id: str):
            known = store.job(job_id)
            later = {**known.spec["searcher"], "newer": 1}
            return replace(known, spec={**known.spec, "searcher": later})

    other = gather(Later(), job)  # type: ignore[arg-type]
    assert other.policy is not None
    assert other.policy.means == ()
    assert other.shown == {"name": "mean", "cls": found.policy.mean.definition["cls"]}  # type: ignore[union-attr]
    assert draw(other).axes
