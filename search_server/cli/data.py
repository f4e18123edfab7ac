"""`lossforge data`: the embedded data set, and what is in any other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search_server.cli.options import JsonOption

app = typer.Typer(no_args_is_help=True, help="The embedded data set, and what is in any other.")


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
