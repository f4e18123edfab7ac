"""COCO files: what is wrong is named, classes keep their order, subsets hold every class."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workers.data import (
    DataError,
    Split,
    check_split,
    digits,
    load_coco,
    lossforge_home,
    one_image_per_class,
    read_classes,
)

Change = Callable[[dict[str, Any]], Any]


def example() -> dict[str, Any]:
    return {
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 8, "width": 8} for i in range(1, 4)
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 4], "area": 16},
            {"id": 2, "image_id": 2, "category_id": 9, "bbox": [0, 0, 4, 4], "area": 16},
            {"id": 3, "image_id": 2, "category_id": 7, "bbox": [1, 1, 2, 2.5], "area": 5},
        ],
    }


def write(folder: Path, content: Any) -> Split:
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for number in range(1, 4):
        (images / f"{number}.png").write_bytes(b"")
    path = folder / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Split(str(path), str(images))


def test_a_good_split_passes(tmp_path: Path) -> None:
    split = write(tmp_path, example())
    check_split(split)
    check_split(split, ("cat", "dog"))
    assert read_classes(split.annotations) == ("cat", "dog")


def test_classes_are_in_the_order_in_which_mmdet_numbers_labels(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    content = example()
    content["categories"].reverse()
    path = write(tmp_path, content).annotations
    coco = COCO(path)
    in_mmdet = [coco.loadCats(identity)[0]["name"] for identity in coco.getCatIds(["cat", "dog"])]
    assert list(read_classes(path)) == in_mmdet == ["dog", "cat"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.pop("categories"), "no list 'categories'"),
        (lambda c: c.pop("images"), "no list 'images'"),
        (lambda c: c.update(annotations={}), "no list 'annotations'"),
        (lambda c: c.update(categories=[]), "no categories"),
        (lambda c: c["categories"][1].pop("name"), r"categories\[1\] has no 'name'"),
        (lambda c: c["categories"][1].update(name="cat"), "two categories have the name 'cat'"),
        (lambda c: c["categories"][1].update(name=3), "name 3, not text"),
        (lambda c: c["categories"][1].update(id=7), r"categories\[1\] has the id 7 of another"),
        (lambda c: c["images"][0].pop("width"), r"images\[0\] has no 'width'"),
        (lambda c: c["images"][0].update(file_name=None), r"images\[0\] has the file_name None"),
        (lambda c: c["images"].append("x"), r"images\[3\] has no 'id'"),
        (lambda c: c["annotations"][2].pop("bbox"), r"annotations\[2\] has no 'bbox'"),
        (lambda c: c["annotations"][2].pop("area"), r"annotations\[2\] has no 'area'"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 3]), "not 4 finite numbers"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 3, "4"]), "not 4 finite numbers"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 3, float("nan")]), "not 4 finite"),
        (lambda c: c["annotations"][2].update(id=1), r"annotations\[2\] has the id 1 of another"),
        (lambda c: c["annotations"][2].update(image_id=5), "names image 5"),
        (lambda c: c["annotations"][2].update(category_id=1), "names category 1"),
        (lambda c: c["annotations"][2].update(category_id=[1]), r"names category \[1\]"),
        (lambda c: c["annotations"][2].update(id=[1]), r"has the id \[1\]"),
    ],
)
def test_what_is_missing_is_named_with_the_file(
    change: Change, problem: str, tmp_path: Path
) -> None:
    content = example()
    change(content)
    split = write(tmp_path, content)
    with pytest.raises(DataError, match=problem) as caught:
        load_coco(split.annotations)
    assert split.annotations in str(caught.value)
    assert caught.value.path == Path(split.annotations)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not COCO"),
        ("3", "not COCO"),
        ("\udcff", "not JSON"),
    ],
)
def test_other_files_are_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=problem):
        read_classes(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: cannot be read: No such file"):
        read_classes(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_classes(tmp_path)


def test_classes_that_differ_are_named(tmp_path: Path) -> None:
    split = write(tmp_path, example())
    with pytest.raises(DataError, match="missing cow; not expected dog"):
        check_split(split, ("cat", "cow"))
    with pytest.raises(DataError, match=r"not expected dog$"):
        check_split(split, ("cat",))
    with pytest.raises(DataError, match="in the order cat, dog"):
        check_split(split, ("dog", "cat"))


def test_images_that_are_missing_are_named(tmp_path: Path) -> None:
    split = write(tmp_path, example())
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png: no such image"):
        check_split(split)
    with pytest.raises(DataError, match="not a folder"):
        check_split(Split(split.annotations, str(tmp_path / "none")))


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_an_empty_split_is_refused(key: str, tmp_path: Path) -> None:
    content = example()
    content["annotations"] = []
    content[key] = []
    with pytest.raises(DataError, match=f"has no {key}"):
        check_split(write(tmp_path, content))


@pytest.mark.parametrize("per_class", [1, 2])
def test_a_subset_has_images_for_every_class(per_class: int, tmp_path: Path) -> None:
    data = digits()
    split = data.splits["search_train"]
    subset = one_image_per_class(split, tmp_path / "deep" / "er", per_class=per_class)
    check_split(subset, data.classes)
    assert subset.images == split.images
    content = load_coco(subset.annotations)
    assert len(content["images"]) == 10 * per_class
    holders = Counter(
        category
        for category, _ in {(a["category_id"], a["image_id"]) for a in content["annotations"]}
    )
    assert len(holders) == 10
    assert min(holders.values()) >= per_class
    whole = load_coco(split.annotations)
    kept = {image["id"] for image in content["images"]}
    assert content["annotations"] == [a for a in whole["annotations"] if a["image_id"] in kept]


def test_a_subset_depends_on_its_seed_alone(tmp_path: Path) -> None:
    split = digits().splits["search_train"]
    first = one_image_per_class(split, tmp_path / "a", seed=1)
    again = one_image_per_class(split, tmp_path / "b", seed=1)
    other = one_image_per_class(split, tmp_path / "a", seed=2)
    assert Path(first.annotations).name == Path(again.annotations).name
    assert Path(first.annotations).read_bytes() == Path(again.annotations).read_bytes()
    assert first.annotations != other.annotations
    assert one_image_per_class(split, tmp_path / "a", seed=1) == first
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_a_subset_takes_what_there_is(tmp_path: Path) -> None:
    split = write(tmp_path, example())
    subset = load_coco(one_image_per_class(split, tmp_path / "out", per_class=5).annotations)
    assert [image["id"] for image in subset["images"]] == [1, 2]


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    content = example()
    content["annotations"][1]["iscrowd"] = 1
    split = write(tmp_path, content)
    with pytest.raises(DataError, match="class 'dog' has no image"):
        one_image_per_class(split, tmp_path)
    with pytest.raises(ValueError, match="per_class is 0"):
        one_image_per_class(split, tmp_path, per_class=0)


def test_the_home_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOSSFORGE_HOME", str(tmp_path / "here"))
    assert lossforge_home() == tmp_path / "here"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOSSFORGE_HOME", "relative")
    assert lossforge_home() == tmp_path / "relative"
    for unset in (
        lambda: monkeypatch.setenv("LOSSFORGE_HOME", ""),
        lambda: monkeypatch.delenv("LOSSFORGE_HOME"),
    ):
        unset()
        assert lossforge_home() == Path.home() / ".lossforge"
