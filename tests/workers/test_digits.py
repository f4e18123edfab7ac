"""The embedded digits: the promised splits, real outlines, the same pixels wherever written."""

import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from sklearn.datasets import load_digits

from workers.data import DataError, DigitsData, check_split, digits, read_classes
from workers.data.embedded import IMAGES, NAME, deal_scans
from workers.data.png import encode_grey_png
from workers.data.polygons import mask_to_polygons, polygon_area
from workers.data.scenes import MAX_COVERED, SIDE, draw_scene, resize

# Of all annotation files and pixels of version 1. Figures in the documentation and in people's
# stores hold for these scenes alone: other scenes need another version, not another number here.
CONTENT = "a8488fa263f5a56e1f1db20a4f9aa13f83b9e5a9e03c6bcaddcd099e30cc3377"


@pytest.fixture
def data(own_home: Path) -> DigitsData:
    found = digits()
    assert found.root == own_home / "data" / NAME
    return found


@pytest.fixture
def contents(data: DigitsData) -> dict[str, dict[str, Any]]:
    return {
        name: json.loads(Path(split.annotations).read_text()) for name, split in data.splits.items()
    }


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_splits_have_their_sizes_and_all_classes(
    data: DigitsData, contents: dict[str, dict[str, Any]]
) -> None:
    sizes = {name: len(content["images"]) for name, content in contents.items()}
    assert sizes == {"search_train": 800, "search_val": 300, "confirm": 300, "test": 500}
    assert len(data.classes) == 10
    for name, split in data.splits.items():
        check_split(split, data.classes)
        assert read_classes(split.annotations) == data.classes
        assert len(list(Path(split.images).glob("*.png"))) == sizes[name]
        counts = np.bincount([a["category_id"] for a in contents[name]["annotations"]])
        assert counts.min() > 0.7 * counts.mean()


def test_no_scan_is_in_two_splits(contents: dict[str, dict[str, Any]]) -> None:
    labels = load_digits().target
    used: dict[int, str] = {}
    for name, content in contents.items():
        for annotation in content["annotations"]:
            assert used.setdefault(annotation["scan"], name) == name
            assert annotation["category_id"] == labels[annotation["scan"]]


def test_scans_are_dealt_out_by_class() -> None:
    labels = load_digits().target
    dealt = deal_scans(labels)
    assert list(dealt) == list(IMAGES)
    assert sorted(np.concatenate(list(dealt.values()))) == list(range(1797))
    shares = {"search_train": 1 / 2, "search_val": 1 / 6, "confirm": 1 / 6, "test": 1 / 6}
    for name, scans in dealt.items():
        share = np.bincount(labels[scans], minlength=10) / np.bincount(labels)
        assert np.abs(share - shares[name]).max() < 0.01


def test_the_content_is_that_of_version_1(data: DigitsData) -> None:
    digest = hashlib.sha256()
    for split in data.splits.values():
        digest.update(Path(split.annotations).read_bytes())
        for path in sorted(Path(split.images).iterdir()):
            rows = np.zeros((SIDE, SIDE + 1), dtype=np.uint8)
            rows[:, 1:] = pixels(path)
            digest.update(rows.tobytes())
    assert digest.hexdigest() == CONTENT


def test_boxes_and_outlines_agree(contents: dict[str, dict[str, Any]]) -> None:
    for annotation in contents["confirm"]["annotations"]:
        x, y, width, height = annotation["bbox"]
        mask = coco_mask.decode(
            coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], SIDE, SIDE))
        )
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min()) == (x, y)
        assert (columns.max() + 1, rows.max() + 1) == (x + width, y + height)
        assert mask.sum() == annotation["area"]
        assert 10 <= max(width, height) <= 46
        assert annotation["iscrowd"] == 0


def test_digits_differ_from_what_lies_around_them(
    data: DigitsData, contents: dict[str, dict[str, Any]]
) -> None:
    """A person could see them: the ink stands out of its box by many times the noise."""
    gaps = []
    images = {image["id"]: image["file_name"] for image in contents["confirm"]["images"]}
    for annotation in contents["confirm"]["annotations"][:300]:
        image = pixels(Path(data.splits["confirm"].images) / images[annotation["image_id"]])
        x, y, width, height = annotation["bbox"]
        mask = coco_mask.decode(
            coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], SIDE, SIDE))
        ).astype(bool)[y : y + height, x : x + width]
        box = image[y : y + height, x : x + width].astype(float)
        if not mask.all():
            gaps.append(abs(box[mask].mean() - box[~mask].mean()))
    assert np.median(gaps) > 50


def test_scenes_hold_few_digits_that_overlap_little() -> None:
    source = load_digits()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scene, pasted = draw_scene(source.images, source.target, np.arange(50), rng)
        assert scene.shape == (SIDE, SIDE)
        assert scene.dtype == np.uint8
        assert 1 <= len(pasted) <= 6
        assert all(digit.scan < 50 for digit in pasted)
        for i, a in enumerate(pasted):
            for b in pasted[:i]:
                width = min(a.bbox[0] + a.bbox[2], b.bbox[0] + b.bbox[2]) - max(
                    a.bbox[0], b.bbox[0]
                )
                height = min(a.bbox[1] + a.bbox[3], b.bbox[1] + b.bbox[3]) - max(
                    a.bbox[1], b.bbox[1]
                )
                smaller = min(a.bbox[2] * a.bbox[3], b.bbox[2] * b.bbox[3])
                assert max(width, 0) * max(height, 0) <= MAX_COVERED * smaller


def test_existing_digits_are_left_alone(data: DigitsData) -> None:
    before = data.root.stat().st_mtime_ns
    assert digits(data.root.parent) == data
    assert data.root.stat().st_mtime_ns == before


def test_a_damaged_folder_is_an_error_that_tells_the_cure(tmp_path: Path) -> None:
    root = tmp_path / NAME
    root.mkdir()
    with pytest.raises(DataError, match="remove") as caught:
        digits(tmp_path)
    assert str(root) in str(caught.value)


def _root(cache: str) -> str:
    return str(digits(Path(cache)).root)


@pytest.mark.slow
def test_processes_that_write_at_once_each_find_the_same_bytes(
    data: DigitsData, tmp_path: Path
) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        roots = pool.map(_root, [str(tmp_path)] * 2, chunksize=1)
    again = tmp_path / NAME
    assert roots == [str(again)] * 2
    assert list(tmp_path.iterdir()) == [again]
    files = sorted(path.relative_to(data.root) for path in data.root.rglob("*") if path.is_file())
    assert len(files) == sum(IMAGES.values()) + len(IMAGES) + 1
    assert len(list(again.rglob("*.*"))) == len(files)
    for file in files:
        assert (again / file).read_bytes() == (data.root / file).read_bytes()


def test_the_source_and_its_licence_are_named(data: DigitsData) -> None:
    text = (data.root / "README.txt").read_text()
    for words in ("Alpaydin", "Kaynak", "UCI", "scikit-learn", "CC BY 4.0"):
        assert words in text


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (96, 96)])
def test_png_files_are_read_back_by_others(shape: tuple[int, int], tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "image.png"
    path.write_bytes(encode_grey_png(image))
    assert np.array_equal(pixels(path), image)


def test_png_refuses_other_images() -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_grey_png(np.zeros((2, 2, 3), dtype=np.uint8))


def test_outlines_follow_pixel_edges() -> None:
    assert mask_to_polygons(np.ones((1, 1), dtype=bool)) == [[0, 0, 1, 0, 1, 1, 0, 1]]
    assert mask_to_polygons(np.zeros((3, 3), dtype=bool)) == []
    corner = np.array([[1, 0], [0, 1]], dtype=bool)
    assert [polygon_area(p) for p in mask_to_polygons(corner)] == [1, 1]
    ring = np.ones((3, 4), dtype=bool)
    ring[1, 1:3] = False
    assert mask_to_polygons(ring) == [[0, 0, 4, 0, 4, 3, 0, 3]]


def test_outlines_of_random_masks_enclose_their_filled_pixels() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        mask = rng.random((12, 9)) < 0.6
        encoded = coco_mask.frPyObjects(mask_to_polygons(mask), 12, 9)
        drawn = coco_mask.decode(coco_mask.merge(encoded)).astype(bool)
        assert (drawn >= mask).all()
        assert np.array_equal(drawn, _filled(mask))


def _filled(mask: np.ndarray) -> np.ndarray:
    """`mask` with its holes; a hole is what no path from outside reaches."""
    outside = np.pad(np.zeros_like(mask), 1, constant_values=True)
    free = np.pad(~mask, 1, constant_values=True)
    while True:
        grown = outside.copy()
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                grown |= np.roll(outside, (dy, dx), (0, 1)) & free
        if np.array_equal(grown, outside):
            return ~outside[1:-1, 1:-1]
        outside = grown


def test_resize_is_bilinear() -> None:
    image = np.array([[0.0, 4.0], [8.0, 12.0]])
    assert np.array_equal(resize(image, 2, 2), image)
    assert resize(image, 4, 4)[0].tolist() == [0, 1, 3, 4]
    assert resize(image, 1, 1)[0, 0] == 6
