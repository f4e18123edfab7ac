"""Fields of a job spec that have to fit each other, and fields that would do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from losses import CATALOG, DefinitionError, LossDefinition, space_role
from primitives import SPACES
from search_server.spec.budgets import Misfit, Part, Proxy, Rejection, Verify
from search_server.spec.policy import PAP, PolicySearcher
from search_server.spec.trees import Searcher
from search_server.spec.tuning import HANDMADE, TUNING, TuningSearcher
from search_server.spec.whole_spaces import AUTOLOSS_ZERO, fits_whole_space

if TYPE_CHECKING:
    from search_server.spec.models import JobSpec


def check(spec: JobSpec) -> None:
    """Refuse a spec whose fields do not fit each other.

    Raises:
        Misfit: names the field.
    """
    _check_kind(spec)
    _check_spaces(spec)
    _check_rejection(spec)
    _check_losses(spec)
    _check_cohorts(spec)
    _check_smaller_batch(spec)
    _check_processes(spec)


def _check_spaces(spec: JobSpec) -> None:
    """A space has to be of its branch, and of the whole space that is named."""
    for branch, given in spec.searched.items():
        fitting = (space_role(given.search_space) == "box") == (branch == "bbox")
        if not fitting:
            raise Misfit(
                f"branches.{branch}.space",
                given.search_space.name,
                "bbox takes box; cls takes multi_cls or binary_cls, or your own like these",
            )
        if spec.search_space and not fits_whole_space(spec.search_space, given.space):
            spaces = ", ".join(name for name in SPACES if name.startswith(AUTOLOSS_ZERO))
            allowed = f"with search_space {spec.search_space} it must be one of {spaces}"
            raise Misfit(f"branches.{branch}.space", given.search_space.name, allowed)


def _check_losses(spec: JobSpec) -> None:
    """Losses that are named have to exist, and fixed ones must not be searched."""
    for branch, fixed in spec.fixed.items():
        if branch in spec.searched or branch in spec.handmade:
            raise Misfit(f"fixed.{branch}", fixed, f"branches.{branch} is searched already")
        check_definition(f"fixed.{branch}", {branch: fixed})
    for index, named in enumerate(spec.searcher.named):
        if isinstance(named, dict):
            continue  # a definition that was read already
        names = [named] if isinstance(named, str) else [named.cls, named.bbox]
        for name in names:
            if name is not None and name not in CATALOG:
                allowed = f"it must be one of {', '.join(CATALOG)}"
                raise Misfit(f"searcher.named.{index}", name, allowed)
    if spec.baseline != "default":
        check_definition("baseline", spec.baseline)


def _check_cohorts(spec: JobSpec) -> None:
    """A simulation decides over whole cohorts."""
    population, simulate = spec.searcher.population, spec.funnel.simulate
    if simulate is not None and spec.window < population:
        raise Misfit(
            "window",
            spec.window,
            f"it must be at least searcher.population ({population}), because a cohort of the "
            "simulation is decided as a whole",
        )
    if simulate is not None and simulate.keep > population:
        raise Misfit(
            "funnel.simulate.keep",
            simulate.keep,
            f"it must be at most searcher.population ({population})",
        )


def _check_smaller_batch(spec: JobSpec) -> None:
    smaller, usual = spec.resources.smaller_batch, spec.funnel.proxy.batch_size
    if smaller is not None and smaller >= usual:
        allowed = f"it must be below funnel.proxy.batch_size ({usual}), or null"
        raise Misfit("resources.smaller_batch", smaller, allowed)


def _check_processes(spec: JobSpec) -> None:
    """The processes of a trial have a GPU each, or none, and equal parts of every batch."""
    resources, funnel = spec.resources, spec.funnel
    number = resources.processes
    if number == 1:
        return
    if resources.gpus not in (0, number):
        allowed = f"it must be 0 (on the CPU) or gpus ({resources.gpus:g}), one process on each"
        raise Misfit("resources.processes", number, allowed)
    batches = {
        "resources.smaller_batch": resources.smaller_batch,
        "funnel.simulate.batch_size": None
        if funnel.simulate is None
        else funnel.simulate.batch_size,
        "funnel.proxy.batch_size": funnel.proxy.batch_size,
        "funnel.confirm.batch_size": None if funnel.confirm is None else funnel.confirm.batch_size,
    }
    for field, batch in batches.items():
        if batch is not None and batch % number:
            raise Misfit(field, batch, f"it must be a multiple of resources.processes ({number})")


def check_companions(spec: JobSpec) -> None:
    """Refuse settings of what is not asked for: they would do nothing.

    Apart from `check`, for a job that is in a store already has to be read whatever it says.

    Raises:
        Misfit: names the field.
    """
    proxy, searcher = spec.funnel.proxy, spec.searcher
    idle: list[tuple[str, Part, Part, str]] = []
    if not proxy.rungs:
        idle += [
            (f"funnel.proxy.{field}", proxy, Proxy(), "`funnel.proxy.rungs`")
            for field in ("reduction", "hopeless")
        ]
    if isinstance(searcher, Searcher):
        usual = Searcher()
        if searcher.selection != "ageing":
            idle.append(("searcher.tournament", searcher, usual, "`selection: ageing`"))
        if searcher.selection != "niches":
            idle.append(("searcher.radius", searcher, usual, "`selection: niches`"))
        if searcher.refine == 0:
            idle.append(("searcher.sigma", searcher, usual, "`refine` above 0"))
    for field, part, standard, companion in idle:
        name = field.rpartition(".")[2]
        if (found := getattr(part, name)) != getattr(standard, name):
            raise Misfit(field, found, f"it does nothing without {companion}: leave it out")


def _check_kind(spec: JobSpec) -> None:
    """A policy searches parameters, a tuning hand-made losses, the others search expressions; what
    another kind is told by other fields would do nothing.

    Raises:
        Misfit: names the field.
    """
    searcher = spec.searcher
    if isinstance(searcher, TuningSearcher):
        _check_tuning(spec)
        return
    for branch in spec.handmade:
        allowed = "handmade losses are tuned by the searcher `tuning`: set searcher.type"
        raise Misfit(f"branches.{branch}.space", HANDMADE, allowed)
    if not isinstance(searcher, PolicySearcher):
        if spec.parameterized:
            allowed = "pap is searched by the searcher `policy`: set searcher.type"
            raise Misfit("branches.cls.space", PAP, allowed)
        return
    for branch, given in spec.searched.items():
        allowed = "the searcher `policy` searches the parameters of space pap"
        raise Misfit(f"branches.{branch}.space", given.search_space.name, allowed)
    follow = f"{searcher.rounds} rounds of {searcher.samples} samples"
    idle: dict[str, tuple[object, object, str]] = {
        "search_space": (spec.search_space, None, "it is for expressions"),
        "mode": (spec.mode, "joint", "there are no generations that could alternate"),
        "fixed": (spec.fixed, {}, "pap is the loss of both branches"),
        "iou_centerness": (spec.iou_centerness, False, "a ranking loss has no centerness"),
        "funnel.simulate": (
            spec.funnel.simulate,
            None,
            "every sample of a round is trained, and its AP is the reward",
        ),
        "funnel.verify": (spec.funnel.verify, Verify(), "no expressions are drawn"),
        "calibrate": (spec.calibrate, False, "how strong a ranking loss is, is searched too"),
        "funnel.proxy.rungs": (
            list(spec.funnel.proxy.rungs),
            [],
            "every sample of a round is trained to its end, and its AP is the reward",
        ),
        "limits.steps": (spec.limits.steps, None, f"its budget are the {follow}"),
        "candidates": (
            spec.candidates,
            searcher.candidates,
            f"it follows from {follow} and the last mean; leave it out",
        ),
        "window": (spec.window, searcher.samples, f"it follows from {follow}; leave it out"),
    }
    _check_idle("policy", idle)


def _check_tuning(spec: JobSpec) -> None:
    """Raises: see `_check_kind`."""
    others = [(b, s.search_space.name) for b, s in spec.searched.items()]
    others += [(branch, PAP) for branch in spec.parameterized]
    for branch, space in others:
        allowed = "the searcher `tuning` tunes the losses of space handmade"
        raise Misfit(f"branches.{branch}.space", space, allowed)
    idle: dict[str, tuple[object, object, str]] = {
        "search_space": (spec.search_space, None, "it is for expressions"),
        "mode": (spec.mode, "joint", "there are no generations that could alternate"),
        "funnel.verify": (spec.funnel.verify, Verify(), "no expressions are drawn"),
        "calibrate": (spec.calibrate, False, "the weights of the losses are tuned"),
    }
    _check_idle(TUNING, idle)


def _check_idle(searcher: str, idle: Mapping[str, tuple[object, object, str]]) -> None:
    """Refuse fields that would do nothing: by field, what it is, what it must be, and why.

    Raises:
        Misfit: names the field.
    """
    for field, (found, wanted, why) in idle.items():
        if found != wanted:
            shown = {"None": "null", "False": "false"}.get(str(wanted), str(wanted))
            if isinstance(wanted, Verify):
                shown = "left out"
            allowed = f"with the searcher `{searcher}` it must be {shown}: {why}"
            raise Misfit(field, _plain(found), allowed)


def _check_rejection(spec: JobSpec) -> None:
    """Settings of the loss rejection do nothing where it is not asked for.

    Raises:
        Misfit: names the field.
    """
    verify = spec.funnel.verify
    spaces = (given.space for given in spec.searched.values())
    by_space = verify.method is None and any(fits_whole_space(AUTOLOSS_ZERO, s) for s in spaces)
    if verify.rejection != Rejection() and verify.method != "rejection" and not by_space:
        allowed = (
            "these expressions go through convergence property verification; leave it out, or set "
            "funnel.verify.method to rejection"
        )
        raise Misfit("funnel.verify.rejection", _plain(verify.rejection), allowed)


def _plain(value: object) -> object:
    """A value as it was written."""
    return value.model_dump(mode="json") if isinstance(value, Part) else value


def check_definition(field: str, given: str | Mapping[str, Any]) -> None:
    """Refuse a name that the catalogue does not have, and a mapping that is no loss definition.

    Raises:
        Misfit: names the field.
    """
    if isinstance(given, str):
        if given not in CATALOG:
            raise Misfit(field, given, f"it must be `default`, or one of {', '.join(CATALOG)}")
        return
    try:
        LossDefinition.from_json({"name": field, **given})
    except DefinitionError as error:
        raise Misfit(field, given, f"it must be a loss definition: {error}") from error
