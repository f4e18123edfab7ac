"""The top of a report: which job, in which state, and the result in one sentence."""

from matplotlib.axes import Axes

from search_server.paired_statistics import Paired
from search_server.report.judged_records import ConfirmedLoss
from search_server.report.policy_records import PolicySearch
from search_server.report.records import Findings
from search_server.report.style import BEST, INK, MUTED, RULE, fitting_size, shortened


def draw_headline(axes: Axes, findings: Findings, width: float) -> None:
    """Name, state and result of a job, on axes that are ``width`` points wide."""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    job = findings.job
    axes.text(
        0, 0.66, shortened(job.name, 42), fontsize=20, fontweight="bold", color=INK, va="center",
        parse_math=False,
    )  # fmt: skip
    axes.text(
        1, 0.66, shortened(f"job {job.id}  ·  {job.state}", 44), fontsize=11, color=MUTED,
        va="center", ha="right", parse_math=False,
    )  # fmt: skip
    sentence = result_sentence(findings)
    axes.text(
        0, 0.26, sentence, fontsize=fitting_size(sentence, 0.97 * width, 12.0, 7.0), va="center",
        color=BEST if findings.answer else MUTED, parse_math=False,
    )  # fmt: skip
    axes.plot([0, 1], [0.02, 0.02], color=RULE, linewidth=1.0, clip_on=False)


def result_sentence(findings: Findings) -> str:
    """The best candidate's AP, the baseline's, and their difference paired by seed, in one line."""
    if findings.policy is not None and not findings.asked:
        return _policy_sentence(findings, findings.policy)
    baseline = findings.baseline_spread
    against = f"baseline AP {baseline.text()}" if baseline.seeds else "no baseline yet"
    if findings.best is None:
        return f"No candidate has finished training yet  ·  {against}"
    shown = findings.best.index if findings.asked else None
    confirmed = next(
        (each for each in findings.confirmed if not each.rival and shown in (None, each.index)),
        None,
    )
    if confirmed is not None:
        return _confirmed_sentence(findings, confirmed)
    seeds = _seeds(findings.best_spread.count)
    which = "One" if findings.asked else "Best"
    text = (
        f"{which} of {findings.trained} trained: candidate {findings.best.index} "
        f"({findings.best.origin}), AP {findings.best_spread.text()} over {seeds}"
    )
    text += f"  ·  {against}"
    if findings.difference is not None and findings.difference.seeds:
        paired = _seeds(findings.difference.count)
        text += f"  ·  difference {findings.difference.text(signed=True)}, paired over {paired}"
    return text


def _confirmed_sentence(findings: Findings, best: ConfirmedLoss) -> str:
    """What fresh seeds say about the best that was confirmed, and on `test` if it was read."""
    paired = best.difference
    first = next(each for each in findings.confirmed if not each.rival)
    which = "Best confirmed" if best is first else "Confirmed"
    text = f"{which}: candidate {best.label}, AP to the baseline {_interval(paired)}"
    text += f" over {_seeds(paired.count)}"
    if best.p is not None:
        text += ", p <0.001" if best.p < 0.001 else f", p {best.p:.3f}"
    if best.shrunken is not None:
        text += f", shrunken {100 * best.shrunken:+.1f}"
    if best.test is not None:
        text += f"  ·  on test {100 * best.test.mean:+.1f} over {_seeds(best.test.count)}"
    return f"{text}  ·  {findings.trained} trained"


def _policy_sentence(findings: Findings, search: PolicySearch) -> str:
    """The final mean, paired with the baseline; before it is trained, how far the search is."""
    baseline = findings.baseline_spread
    against = f"baseline AP {baseline.text()}" if baseline.seeds else "no baseline yet"
    best = ""
    if search.samples:
        top = max(search.samples, key=lambda sample: (sample.fitness, -sample.index))
        best = f"  ·  best sample: candidate {top.index}, AP {100 * top.fitness:.1f}"
    if search.mean is None:
        means = search.round_means
        newest = max(means, default=0)
        if not newest:
            return f"Round 0 of {search.rounds.count}  ·  {against}"
        text = f"Round {newest} of {search.rounds.count}, mean AP {100 * means[newest]:.1f}"
        return f"{text}  ·  {against}{best}"
    own = search.mean_spread
    text = f"Final mean after {search.rounds.count} rounds of {search.rounds.samples}: "
    text += f"AP {own.text()} over {_seeds(own.count)}  ·  {against}"
    if search.mean_difference is not None and search.mean_difference.seeds:
        paired = _seeds(search.mean_difference.count)
        text += f"  ·  difference {search.mean_difference.text(signed=True)}, paired over {paired}"
    confirmed = next((c for c in findings.confirmed if c.index == search.mean.index), None)
    if confirmed is not None:
        return f"{text}  ·  confirmed {_interval(confirmed.difference)}"
    return text + best


def _interval(paired: Paired) -> str:
    text = f"{100 * paired.mean:+.1f}"
    if paired.low is None or paired.high is None:
        return text
    return f"{text} ({100 * paired.low:+.1f} to {100 * paired.high:+.1f})"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
