"""`lossforge train`: a detector with a loss of one's choice, for its full schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search_server.cli.options import CompileOption, JsonOption, Precision


def train(
    config: Annotated[
        str, typer.Argument(help="An mmdet config, or a packaged detector: digits/atss.")
    ],
    loss_cls: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR|NAME",
            help="Classification loss: an expression, or a catalogue name; default: the "
            "detector's own.",
            show_default=False,
        ),
    ] = None,
    loss_bbox: Annotated[
        str | None,
        typer.Option(metavar="EXPR|NAME", help="Box loss, in the same way.", show_default=False),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Both branches: a loss definition in JSON, or a catalogue name.",
            show_default=False,
        ),
    ] = None,
    iou_centerness: Annotated[
        bool | None,
        typer.Option(
            "--iou-centerness/--no-iou-centerness",
            help="FCOS and ATSS: whether the IoU is the target of centerness; default: as --loss "
            "says, else not.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="`digits`, or the folder of a COCO-format data set; default: the config's own "
            "data sets.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimiser steps; default: the config's full schedule."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Images a step and process, with --data."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1)] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="CPU threads; trials take 1.")
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Train on so many GPUs of this machine, a process on each."
        ),
    ] = None,
    cpu_processes: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="The same with processes on the CPU, in place of GPUs."),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Arithmetic of the layers; the losses are float32 always.")
    ] = Precision.float32,
    compile_loss: CompileOption = False,
    cfg_options: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Change a value of the config, as mmdet's tools do; may be repeated: "
            "--cfg-options optim_wrapper.optimizer.lr=0.02",
            show_default=False,
        ),
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(help="For checkpoint and logs; default: work_dirs/CONFIG-LOSS."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a detector with searched or default losses, in all four combinations.

    Give no loss for the detector's own two, --loss-cls or --loss-bbox to replace one of them, and
    both (or --loss) to replace both. The AP of the last evaluation is printed at the end.

    With --gpus N a step takes N times the batch, and the gradients are averaged; learning rate and
    number of epochs stay as the config says them. docs/multi_gpu.md says what that means for each
    loss.

    Example: lossforge train digits/faster_rcnn --loss-cls cse-autoloss-a --data digits
    """
    from search_server.cli.output import note, one_line, points, print_json, stdout_kept

    with stdout_kept():
        import torch

        from search_server.errors import JobError
        from search_server.full_training import Training, train_fully
        from search_server.loss_choice import choose_loss, detector_path

        stem = detector_path(config).stem
        definition = choose_loss(config, loss, loss_cls, loss_bbox, iou_centerness)
        folder = work_dir or Path("work_dirs") / one_line(f"{stem}-{definition.name}")
        if threads is not None:
            torch.set_num_threads(threads)
        note(f"{config} with {definition.name}, in {folder}")
        if gpus is not None and cpu_processes is not None:
            raise JobError("give --gpus or --cpu-processes, not both")
        number, options = gpus or cpu_processes, tuple(cfg_options or ())
        training = Training(
            config, definition, data, steps, batch_size, seed, options,
            processes=number or 1,
            cpu=cpu_processes is not None,
            precision=precision.value,
            compile_loss=compile_loss,
        )  # fmt: skip
        if number is None:
            done = train_fully(training, folder, note)
        else:
            from search_server.distributed_training import Processes, train_in_processes

            processes = Processes(number, training.cpu, threads)
            done = train_in_processes(training, folder, processes, note)
    if as_json:
        print_json({"loss": definition.to_json(), **_json(done)})
        return
    if done.fitness is None:
        print("trained; the config has no evaluation on COCO boxes, or its data no boxes: no AP")
    else:
        found = {name: done.metrics.get(f"coco/bbox_mAP_{name}") for name in ("50", "75")}
        rest = ", ".join(f"AP{name} {points(value)}" for name, value in found.items())
        print(f"AP {100 * done.fitness:.2f} ({rest})")
    if done.checkpoint is not None:
        print(one_line(f"saved {done.checkpoint}"))


def _json(done: object) -> dict[str, object]:
    from search_server.cli.output import jsonable

    return dict(jsonable(done))
