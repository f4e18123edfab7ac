"""What `lossforge compare` trains beside the losses: from its own options, or from a job spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from losses import LossDefinition
    from search_server.comparison import Contender
    from search_server.spec import Resources
    from workers import TrialSpec


@dataclass(frozen=True)
class Setting:
    """What is trained beside the losses.

    Attributes:
        baseline: what a spec measures its candidates against; None: the first loss.
        about: for the output.
    """

    template: TrialSpec
    resources: Resources
    baseline: LossDefinition | None
    first_seed: int
    about: dict[str, str]


def own_setting(
    detector: str | None,
    data: str | None,
    train_split: str | None,
    split: str | None,
    images: Path | None,
    steps: int | None,
    batch_size: int | None,
    device: str | None,
    threads: int | None,
    gpus: float | None,
    trial_seconds: float | None,
) -> Setting:
    """From the command's own options."""
    from search_server.comparison_splits import choose_splits
    from search_server.errors import JobError
    from search_server.loss_choice import detector_path
    from search_server.spec import Resources
    from search_server.spec_trials import FIRST_SEED
    from workers import TrialSpec, load_detector

    if detector is None:
        raise JobError("give --spec SPEC.yaml, or --detector: what is to be trained?")
    data, train, split = data or "digits", train_split or "search_train", split or "confirm"
    where: Any = device or "auto"
    splits, classes = choose_splits(data, (train, split), images)
    template = TrialSpec(
        detector=load_detector(detector_path(detector)),
        definition={},
        train=splits[0],
        evaluate=splits[1],
        seed=0,
        steps=steps or 600,
        batch_size=batch_size or 8,
        classes=classes,
        device=where,
        threads=threads or 1,
        time_limit=trial_seconds,
    )
    cores = threads or 1
    resources = Resources(cpus=cores, gpus=gpus or 0.0, threads=cores, device=where)
    about = {"detector": detector, "data": data, "train_split": train, "split": split}
    return Setting(template, resources, None, FIRST_SEED, about)


def spec_setting(
    path: Path, split: str | None, steps: int | None, batch_size: int | None
) -> Setting:
    """From a job spec, as it confirms its candidates."""
    from search_server.spec import load_spec
    from search_server.spec_trials import FIRST_SEED, spec_trials

    spec = load_spec(path)
    found = spec_trials(spec, path, split=split, steps=steps, batch_size=batch_size)
    about = {
        "spec": str(path),
        "detector": spec.detector,
        "data": spec.data if isinstance(spec.data, str) else "the spec's data",
        "train_split": "search_train",
        "split": found.split,
    }
    return Setting(found.template, spec.resources, found.baseline, FIRST_SEED, about)


def check_alone(**options: object) -> None:
    """What the spec says cannot be said again.

    Raises:
        JobError: an option was given beside --spec.
    """
    from search_server.errors import JobError

    given = [name for name, value in options.items() if value is not None]
    if given:
        option = given[0].replace("_", "-")
        raise JobError(f"--{option} is in the spec: give --spec or --{option}, not both")


def chosen_contenders(
    losses: Sequence[str], baseline: str | None, store: str | None, setting: Setting
) -> tuple[tuple[Contender, ...], int]:
    """The losses, and which of them is the baseline; a spec's own is added if it is missing."""
    from search_server.cli.options import open_store
    from search_server.comparison import Contender
    from search_server.contenders import choose_contenders

    found, base = choose_contenders(losses, baseline, lambda: open_store(store))
    own = setting.baseline
    if own is None or baseline is not None:
        return found, base
    same = [i for i, each in enumerate(found) if each.definition.key == own.key]
    if same:
        return found, same[0]
    name = own.name if own.name not in {each.name for each in found} else f"{own.name} (spec)"
    return (Contender(name, own), *found), 0
