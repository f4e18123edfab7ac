"""`build_config`: the one config that a trial trains, and that an export writes down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from losses import LossDefinition, apply_loss  # isort: skip  - before anything of mmdet

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope

import workers.arithmetic  # this and the next register what a config names
import workers.metric
from workers.data.split import Split
from workers.detector import parse_detector
from workers.errors import DetectorError
from workers.schedule import scale_schedule
from workers.spec import TrialSpec
from workers.warm_start import warm_start_path

CUSTOM_IMPORTS = ("losses", "workers.metric")
ARITHMETIC = "workers.arithmetic"  # custom import of a trial in bfloat16
BFLOAT16 = workers.arithmetic.Bfloat16Layers.__name__
_DATA_FIELDS = frozenset(
    ("ann_file", "data_root", "data_prefix", "metainfo", "indices", "filter_cfg", "test_mode")
    + ("lazy_init", "backend_args")
)


def build_config(spec: TrialSpec) -> Config:
    """The full mmengine config of a trial: ``Runner.from_cfg(build_config(spec)).train()``.

    Trained by plain mmengine with the same thread count (``OMP_NUM_THREADS``) and on the same kind
    of device, it gives the trial's own result; `train` adds what watches (evaluations at rungs
    too) and what pauses, nothing that steers.

    From the user's config come the model, both pipelines, the optimiser, the schedule (brought to
    the budget by `scale_schedule`), custom hooks, pretrained weights if it names any, and
    ``randomness.deterministic``. From the spec come:

    - the loss, by `apply_loss`;
    - both data sets: one `CocoDataset` (or the user's own subclass of it) per split, absolute
      paths, the spec's classes; wrappers that repeat or join data sets are taken off;
    - ``num_classes`` of every box and mask head;
    - batch size, an endless sampler instead of one that ends with an epoch, one evaluation after
      the last step by `FullPrecisionCocoMetric`, seed;
    - with a warm start the path of its weights (`workers.warm_start`), as ``load_from``;
    - with precision "bfloat16" the custom hook `Bfloat16Layers`, before the user's own;
    - data-loading processes: none for device "cpu", else the user's own number. They draw the
      augmentations, so their number steers the result; that it follows from the spec alone makes
      the config the same on whatever machine it is built.

    Checkpoints and visualisation are off. ``custom_imports`` starts with `CUSTOM_IMPORTS`.

    Raises:
        DetectorError: the detector's text is no config, or lacks a part that training needs.
        losses.LossesError: the loss does not fit the detector.
    """
    config = parse_detector(spec.detector)
    config = apply_loss(config, LossDefinition.from_json(spec.definition))
    _set_imports(config)
    if spec.precision == "bfloat16":
        put_bfloat16(config)
    _set_classes(config.model, len(spec.classes))
    _set_training(config, spec)
    _set_evaluation(config, spec)
    _set_bookkeeping(config)
    if spec.warm_start is not None:
        config.load_from = str(warm_start_path(spec))
    return config


def _set_imports(config: Config) -> None:
    own = config.get("custom_imports") or {}
    names = own.get("imports") or []
    names = [names] if isinstance(names, str) else list(names)
    others = [name for name in names if name not in CUSTOM_IMPORTS]
    config.custom_imports = {
        "imports": [*CUSTOM_IMPORTS, *others],
        "allow_failed_imports": bool(own.get("allow_failed_imports", False)),
    }


def put_bfloat16(config: Config) -> None:
    """Has a config train its layers in bfloat16, by the hook of `workers.arithmetic`.

    Args:
        config: with ``custom_imports``, as `apply_loss` leaves it; changed in place.
    """
    imports = config.custom_imports["imports"]
    if ARITHMETIC not in imports:
        imports.append(ARITHMETIC)
    own = [hook for hook in config.get("custom_hooks") or [] if _type_name(hook) != BFLOAT16]
    config.custom_hooks = [{"type": BFLOAT16}, *own]


def _set_classes(model: dict[str, Any], number: int) -> None:
    parent = model["roi_head"] if isinstance(model.get("roi_head"), dict) else model
    for name in ("bbox_head", "mask_head"):
        heads = parent.get(name)
        for head in heads if isinstance(heads, list | tuple) else [heads]:
            if isinstance(head, dict):
                head["num_classes"] = number


def _set_training(config: Config, spec: TrialSpec) -> None:
    loader = _loader(config, "train_dataloader", spec.device)
    loader["dataset"] = _dataset(loader["dataset"], spec.train, spec.classes, test_mode=False)
    loader["batch_size"] = spec.batch_size // spec.processes  # as mmengine counts: a process's
    if _type_name(loader.get("sampler")) in ("", "DefaultSampler", "DistributedSampler"):
        loader["sampler"] = {"type": "InfiniteSampler", "shuffle": True}
    if "optim_wrapper" not in config:
        raise DetectorError("the detector's config", "has no `optim_wrapper`: how is it trained?")
    config.train_dataloader = loader
    own = config.get("train_cfg") or {}
    config.param_scheduler = scale_schedule(config.get("param_scheduler"), own, spec.steps)
    config.train_cfg = {
        "type": "IterBasedTrainLoop",
        "max_iters": spec.steps,
        "val_begin": spec.steps,
        "val_interval": spec.steps,
    }
    randomness = config.get("randomness") or {}
    config.randomness = {
        "seed": spec.seed,
        "deterministic": bool(randomness.get("deterministic", False)),
    }


def _set_evaluation(config: Config, spec: TrialSpec) -> None:
    loader = _loader(config, "val_dataloader", spec.device)
    loader["dataset"] = _dataset(loader["dataset"], spec.evaluate, spec.classes, test_mode=True)
    loader["sampler"] = {"type": "DefaultSampler", "shuffle": False}
    loader.pop("batch_sampler", None)
    evaluator = {"type": "FullPrecisionCocoMetric", "ann_file": spec.evaluate.annotations}
    for split in ("val", "test"):
        config[f"{split}_dataloader"] = loader
        config[f"{split}_evaluator"] = evaluator
    config.val_cfg = {"type": "ValLoop"}
    config.test_cfg = {"type": "TestLoop"}


def _set_bookkeeping(config: Config) -> None:
    hooks = dict(config.get("default_hooks") or {})
    hooks.pop("visualization", None)
    config.default_hooks = {**hooks, "checkpoint": None}
    config.visualizer = {"type": "Visualizer", "vis_backends": []}
    config.log_processor = {"type": "LogProcessor", "window_size": 20, "by_epoch": False}
    environment = dict(config.get("env_cfg") or {})
    config.env_cfg = {**environment, "cudnn_benchmark": False}
    config.default_scope = config.get("default_scope") or "mmdet"
    config.launcher = "none"
    config.resume = False
    config.work_dir = "work_dirs/lossforge"


def _loader(config: Config, name: str, device: str) -> dict[str, Any]:
    loader = config.get(name)
    if not isinstance(loader, dict) or not isinstance(loader.get("dataset"), dict):
        raise DetectorError("the detector's config", f"has no `{name}` with a data set")
    loader = Config({"loader": loader}).to_dict()["loader"]  # a copy, in plain dicts
    if device == "cpu":
        loader["num_workers"] = 0
        loader.pop("prefetch_factor", None)
        loader.pop("multiprocessing_context", None)
        loader["persistent_workers"] = False
    return loader


def _dataset(
    dataset: Mapping[str, Any], split: Split, classes: tuple[str, ...], test_mode: bool
) -> dict[str, Any]:
    """The user's data set with other data in it.

    Wrappers that repeat, join or balance are taken off (the endless sampler repeats, a split is
    one file); one that mixes images in a pipeline of its own stays.
    """
    inner = dataset.get("dataset") or dataset.get("datasets")
    if inner is not None:
        first = inner[0] if isinstance(inner, list | tuple) else inner
        wrapped = _dataset(first, split, classes, test_mode)
        return {**dataset, "dataset": wrapped} if "pipeline" in dataset else wrapped
    if "pipeline" not in dataset:
        raise DetectorError("the detector's config", "has a data set without a `pipeline`")
    coco = _is_coco(dataset["type"])
    own = {name: value for name, value in dataset.items() if name not in _DATA_FIELDS}
    kept = {"filter_cfg": dataset["filter_cfg"]} if dataset.get("filter_cfg") else {}
    return {
        **(own if coco else {}),
        "type": dataset["type"] if coco else "CocoDataset",
        "data_root": "",
        "ann_file": split.annotations,
        "data_prefix": {"img": split.images},
        "metainfo": {"classes": classes},
        "pipeline": dataset["pipeline"],
        "test_mode": test_mode,
        **({} if test_mode else kept),
    }


def _is_coco(kind: Any) -> bool:
    """Whether a data set type reads COCO boxes of the classes it is told."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        found = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(found, type) or not issubclass(found, CocoDataset):
        return False
    return found is CocoDataset or not found.__module__.startswith("mmdet.")


def _type_name(part: Any) -> str:
    kind = part.get("type", "") if isinstance(part, Mapping) else ""
    return (kind if isinstance(kind, str) else kind.__name__).rsplit(".", 1)[-1]
