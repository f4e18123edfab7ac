"""`lossforge data`: the embedded data set, what is in any other, and splits of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_server.cli.options import JsonOption

if TYPE_CHECKING:
    from workers.data import WrittenSplit

app = typer.Typer(
    no_args_is_help=True, help="The embedded data set; what is in any other, and splits of it."
)
_SPLITS = ("search_train", "search_val", "confirm")
_LINE_EVERY = 15.0  # seconds


@app.command()
def digits(
    path: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write it into; default: data in Lossforge's home folder.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the embedded digits (COCO JSON and PNG, once) and say where they are.

    Example: lossforge data digits
    """
    from search_server.cli.output import console, plain, print_json, table
    from workers.data import digits as write

    try:
        data = write(path)
    except OSError as error:
        from workers.data import DataError

        raise DataError(
            path or "the data folder", f"cannot be written: {error.strerror}"
        ) from error
    if as_json:
        print_json({"root": data.root, "splits": data.splits, "classes": data.classes})
        return
    made = table("split", "annotations", "images", fold=("annotations", "images"))
    for name, split in data.splits.items():
        made.add_row(name, plain(split.annotations), plain(split.images))
    console().print(made)


@app.command()
def info(
    annotations: Annotated[Path, typer.Argument(help="A COCO annotation file.")],
    images: Annotated[
        Path | None, typer.Option(help="The image folder, to look whether the images are there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count images, boxes and classes of a COCO annotation file, and check it.

    Example: lossforge data info instances_val2017.json --images val2017
    """
    from search_server.cli.output import console, plain, print_json, table
    from workers import Split
    from workers.data import check_split, load_coco

    content = load_coco(annotations)
    if images is not None:
        check_split(Split(str(annotations), str(images)))
    facts = _facts(content)
    if as_json:
        print_json({"annotations": annotations, **facts})
        return
    out = console()
    out.print(
        plain(
            f"{facts['images']} images, {facts['boxes']} boxes, {len(facts['classes'])} classes; "
            f"{facts['small']} small, {facts['medium']} medium, {facts['large']} large boxes"
        )
    )
    made = table("class", "boxes", right=("boxes",))
    for name, count in facts["classes"].items():
        made.add_row(plain(name), str(count))
    out.print(made)


@app.command()
def split(
    annotations: Annotated[Path, typer.Argument(help="A COCO annotation file of any size.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="A new folder for the files; default: ANNOTATIONS-splits in the current one.",
            show_default=False,
        ),
    ] = None,
    ratios: Annotated[
        str,
        typer.Option(
            metavar="A,B[,C]",
            help="Shares of the images for search_train, search_val and confirm; what they leave "
            "of 1 is left out.",
        ),
    ] = "0.8,0.1,0.1",
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Another seed gives other splits.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Split a COCO annotation file for a search: search_train, search_val and confirm.

    Every image is in one split at most, with all of its annotations, and every class is shared out
    in the ratios as far as its images allow. The file is read piece by piece; nothing is
    overwritten, and the folder appears when all is written.

    Example: lossforge data split instances_train2017.json --ratios 0.8,0.1,0.1 -o splits
    """
    from search_server.cli.output import console, plain, print_json, table
    from workers.data import split_annotations

    shares = _ratios(ratios)
    folder = out or Path(f"{annotations.stem}-splits")
    with _progress_bar() as progress:
        made = split_annotations(annotations, folder, shares, seed, progress)
    if as_json:
        print_json({"source": annotations, "ratios": shares, "seed": seed, "splits": made})
        return
    rows = table("split", "annotations", "images", "boxes", fold=("annotations",))
    for name, written in made.items():
        boxes = str(sum(written.boxes.values()))
        rows.add_row(name, plain(str(written.annotations)), str(written.images), boxes)
    out_console = console()
    out_console.print(rows)
    for line in _gaps(made):
        out_console.print(plain(line))


def _ratios(text: str) -> dict[str, float]:
    """The share of each split, from `0.8,0.1,0.1`."""
    from workers.data.splitting import check_ratios

    try:
        shares = [float(part) for part in text.split(",")]
        if not 2 <= len(shares) <= len(_SPLITS):
            raise ValueError(f"{len(shares)} ratios were given")
        named = dict(zip(_SPLITS, shares, strict=False))
        check_ratios(named)
    except ValueError as error:
        wanted = "give two or three shares for search_train, search_val and confirm: 0.8,0.1,0.1"
        raise typer.BadParameter(f"{error}; {wanted}", param_hint="--ratios") from error
    return named


def _gaps(made: dict[str, WrittenSplit]) -> list[str]:
    """A line for every split that lacks classes."""
    lines = []
    for name, written in made.items():
        missing = [title for title, count in written.boxes.items() if not count]
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            lines.append(f"{name} has no box of {len(missing)} classes: {shown}")
    return lines


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[str, float], None]]:
    """Takes what is done and how much of it: a bar on a terminal, a line now and then elsewhere."""
    from rich.progress import Progress

    from search_server.cli.output import console, note

    out = console(stderr=True)
    if not out.is_terminal:
        lines = {"next": time.monotonic() + _LINE_EVERY}

        def say(doing: str, share: float) -> None:
            if time.monotonic() >= lines["next"]:
                lines["next"] = time.monotonic() + _LINE_EVERY
                note(f"{doing}: {100 * share:.0f} %")

        yield say
        return
    with Progress(console=out, transient=True) as bars:
        bar = bars.add_task("reading", total=1.0)
        yield lambda doing, share: bars.update(bar, description=doing, completed=share)


def _facts(content: dict[str, Any]) -> dict[str, Any]:
    """Numbers of a data set; small, medium and large are COCO's, by area in pixels."""
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    counts = dict.fromkeys(names.values(), 0)
    sizes = {"small": 0, "medium": 0, "large": 0}
    for annotation in content["annotations"]:
        counts[names[annotation["category_id"]]] += 1
        area = annotation["area"]
        sizes["small" if area < 32**2 else "medium" if area < 96**2 else "large"] += 1
    return {
        "images": len(content["images"]),
        "boxes": len(content["annotations"]),
        **sizes,
        "classes": counts,
    }
