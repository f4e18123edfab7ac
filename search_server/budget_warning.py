"""Says before a search begins whether its confirm stage can see the gain that it is to find."""

from __future__ import annotations

from search_server.errors import StoreError
from search_server.leaderboard import trial_group
from search_server.power import LEVEL, detectable_gain, seeds_needed
from search_server.spec import JobSpec
from search_server.spec_trials import spec_trials
from search_server.store import NoiseFloor, Store


def budget_warning(spec: JobSpec, source: object, store_url: str) -> str | None:
    """What is to be said of a job's `target_gain`; None where there is none, or all is well.

    Without a noise floor of the confirm stage's trial group in the store it says how to measure
    one.

    Args:
        source: the spec's file, for the command that it names.
        store_url: of the store with the noise floors; there need be none.

    Raises:
        SpecError: see `create_job`.
    """
    gain, confirm = spec.target_gain, spec.funnel.confirm
    if gain is None:
        return None
    if confirm is None:
        return (
            f"target_gain is {gain:g} AP, but nothing is confirmed: a gain of the search's own "
            "trials is partly luck; add `funnel: {confirm: {top: 3, seeds: 8}}`"
        )
    floor = _floor(store_url, trial_group(spec_trials(spec, source).template))
    if floor is None or floor.sd_paired is None:
        return (
            f"whether {confirm.seeds} confirm seeds can detect target_gain, {gain:g} AP, is not "
            f"known; measure the noise first: lossforge noise {source}"
        )
    return shortfall(gain, confirm.seeds, confirm.top, 100 * floor.sd_paired, floor.freedom)


def shortfall(gain: float, seeds: int, top: int, deviation: float, freedom: int) -> str | None:
    """Says that a gain is too small for so many seeds; None where it is not.

    Args:
        gain: points of AP.
        seeds, top: of `confirm`.
        deviation, freedom: of the paired difference, in points of AP.
    """
    level = LEVEL / top
    needed = seeds_needed(gain, deviation, level)
    if needed is not None and needed <= seeds:
        return None
    enough = "more than 100,000" if needed is None else f"{needed}"
    finds = ""
    if seeds > 1:
        finds = f"; these find {detectable_gain(deviation, seeds, level):.2f} AP and more"
    return (
        f"{seeds} confirm seeds cannot detect target_gain, {gain:g} AP, for the best of {top}: it "
        f"takes {enough} (paired sd {deviation:.2f} AP from {freedom} degrees of freedom, power "
        f"0.8, p < 0.05 corrected){finds}"
    )


def _floor(store_url: str, group: str) -> NoiseFloor | None:
    try:
        with Store.open(store_url) as store:
            return store.noise_floor(group)
    except StoreError:
        return None  # there is none yet, or the search is about to say what is wrong with it
