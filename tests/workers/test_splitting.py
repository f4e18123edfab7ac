"""Splitting a COCO file: a partition, the same one each time, every class in its share."""

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers import Split
from workers.data import DataError, check_split, digits, json_stream, load_coco, split_annotations
from workers.data.json_stream import read_pieces
from workers.data.stratify import stratify

RATIOS = {"search_train": 0.8, "search_val": 0.1, "confirm": 0.1}
CLASSES = ("cat", "döner", 'a "quoted" one')
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def annotation(number: int, image: Any, label: int, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": label,
        "bbox": [0.5, 1, 2e1, 3],
        "area": 60.0,
        "iscrowd": crowd,
        "segmentation": {"counts": 'x"[{\\', "size": [4, 4]} if crowd else [[1.25] * 6],
    }


def coco(images: list[list[tuple[int, bool]]], names: bool = False) -> dict[str, Any]:
    """A data set from the (class, crowd) pairs of every image; ids are numbers or texts."""
    identities = [f"im{i}" if names else 7 * i for i in range(len(images))]
    boxes = [(i, label, crowd) for i, held in enumerate(images) for label, crowd in held]
    return {
        "info": {"description": "made up \u2028 here", "year": 1e3},
        "images": [
            {"id": identity, "file_name": f"{i}.jpg", "height": 4, "width": 5}
            for i, identity in enumerate(identities)
        ],
        "annotations": [
            annotation(number, identities[i], label, int(crowd))
            for number, (i, label, crowd) in enumerate(boxes)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        "own": [None, {"deep": []}],
    }


def write(path: Path, content: dict[str, Any], **style: Any) -> Path:
    path.write_text(json.dumps(content, **style), encoding="utf-8")
    return path


image = st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=4)
shares = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5), (0.7, 0.3), (0.4, 0.3, 0.1)])


@FEW
@given(
    images=st.lists(image, min_size=30, max_size=50),
    names=st.booleans(),
    indent=st.sampled_from([None, 1]),
    order=st.permutations(["info", "images", "annotations", "categories", "own"]),
    ratios=shares,
    seed=st.integers(0, 2**32 - 1),
    chunk=st.sampled_from([3, 50, 1 << 20]),
)
def test_every_image_is_in_one_split_with_all_that_it_holds(
    images: list[list[tuple[int, bool]]],
    names: bool,
    indent: int | None,
    order: list[str],
    ratios: tuple[float, ...],
    seed: int,
    chunk: int,
) -> None:
    content = {key: coco(images, names)[key] for key in order}
    wanted = dict(zip(RATIOS, ratios, strict=False))
    with TemporaryDirectory() as folder, patch.object(json_stream, "CHUNK", chunk):
        source = write(Path(folder) / "all.json", content, indent=indent)
        made = split_annotations(source, Path(folder) / "out", wanted, seed)
        again = split_annotations(source, Path(folder) / "again", wanted, seed)
        splits = {name: load_coco(written.annotations) for name, written in made.items()}
        for name, written in made.items():
            assert written.annotations.read_bytes() == again[name].annotations.read_bytes()
    for name, split in splits.items():
        assert list(split) == order
        rest = [key for key in order if key not in ("images", "annotations")]
        assert [split[key] for key in rest] == [content[key] for key in rest]
        held = {entry["id"] for entry in split["images"]}
        assert split["images"] == [i for i in content["images"] if i["id"] in held]
        assert split["annotations"] == [a for a in content["annotations"] if a["image_id"] in held]
        assert made[name].images == len(held)
        counts = Counter(CLASSES[a["category_id"]] for a in split["annotations"])
        assert made[name].boxes == {title: counts[title] for title in CLASSES}
    dealt = Counter(entry["id"] for split in splits.values() for entry in split["images"])
    assert set(dealt.values()) == {1}
    assert len(dealt) == pytest.approx(sum(ratios) * len(images), abs=4)


@FEW
@given(
    held=st.lists(st.lists(st.integers(0, 6), max_size=5, unique=True), min_size=1, max_size=80),
    ratios=shares,
    seed=st.integers(0, 1000),
)
def test_the_rarest_class_is_shared_out_to_the_image(
    held: list[list[int]], ratios: tuple[float, ...], seed: int
) -> None:
    full = (*ratios, 1 - sum(ratios)) if sum(ratios) < 0.99 else ratios
    pairs = np.array([(i, c) for i, labels in enumerate(held) for c in labels], int).reshape(-1, 2)
    chosen = stratify(len(held), pairs, full, seed)
    assert chosen.min() >= 0
    assert chosen.max() < len(full)
    counts = Counter(pairs[:, 1].tolist())
    if counts:
        rarest = min(counts, key=lambda label: (counts[label], label))
        owners = pairs[pairs[:, 1] == rarest, 0]
        for split, share in enumerate(full):
            got = int((chosen[owners] == split).sum())
            # each image goes where most are wanted: no split gets one too many
            assert -(len(full) - 1) < got - share * len(owners) < 1


@pytest.mark.parametrize("seed", range(4))
def test_common_and_rare_classes_come_close_to_their_shares(seed: int) -> None:
    """A long tail, 1 to 40 % of 3,000 images, classes drawn independently."""
    rng = np.random.default_rng(seed)
    rates = np.geomspace(0.01, 0.4, 20)
    present = rng.random((3000, 20)) < rates
    pairs = np.argwhere(present)
    chosen = stratify(3000, pairs, (0.8, 0.1, 0.1), seed)
    assert np.bincount(chosen) == pytest.approx([2400, 300, 300], abs=8)
    off, random_off = [], []
    by_chance = rng.choice(3, size=3000, p=(0.8, 0.1, 0.1))
    for label in range(20):
        owners = np.flatnonzero(present[:, label])
        for dealt, found in ((chosen, off), (by_chance, random_off)):
            found.append(abs((dealt[owners] == 1).sum() - 0.1 * len(owners)) / len(owners))
    assert max(off) < 0.03
    assert np.mean(off) < np.mean(random_off) / 2


def test_another_seed_gives_another_split(tmp_path: Path) -> None:
    source = digits().splits["search_val"].annotations
    first, second = (split_annotations(source, tmp_path / str(s), RATIOS, s) for s in (0, 1))
    one, other = (load_coco(s["confirm"].annotations)["images"] for s in (first, second))
    assert [i["id"] for i in one] != [i["id"] for i in other]


def test_entries_of_one_file_are_one_image(tmp_path: Path) -> None:
    content = coco([[(i % 3, False)] for i in range(60)])
    for position, entry in enumerate(content["images"]):
        entry["file_name"] = f"{position // 3}.jpg"
    source = write(tmp_path / "all.json", content)
    made = split_annotations(source, tmp_path / "out", RATIOS)
    held = [
        {i["file_name"] for i in load_coco(each.annotations)["images"]} for each in made.values()
    ]
    assert [each.images for each in made.values()] == [len(files) for files in held]
    assert sum(map(len, held)) == len(set.union(*held)) == 20
    assert sum(sum(each.boxes.values()) for each in made.values()) == 60


def test_what_is_written_can_be_trained_on(tmp_path: Path) -> None:
    given = digits().splits["search_val"]
    for written in split_annotations(given.annotations, tmp_path / "out", RATIOS).values():
        check_split(Split(str(written.annotations), given.images), digits().classes)
        assert min(written.boxes.values()) > 0


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    """26 MB of masks."""
    content = coco([[(i % 3, False)] for i in range(400)])
    for entry in content["annotations"]:
        entry["segmentation"] = {"counts": "ab0" * 22_000, "size": [9, 9]}
    source = write(tmp_path / "all.json", content)
    size = source.stat().st_size
    del content
    tracemalloc.start()
    split_annotations(source, tmp_path / "out", RATIOS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 26_000_000
    assert peak < size / 3


def test_progress_comes_to_the_end(tmp_path: Path) -> None:
    said: dict[str, list[float]] = {}
    source = write(tmp_path / "all.json", coco([[(0, False)]] * 60))
    with patch.object(json_stream, "CHUNK", 500):
        split_annotations(
            source, tmp_path / "out", RATIOS, 0, lambda d, s: said.setdefault(d, []).append(s)
        )
    assert list(said) == ["reading", "dealing out", "writing"]
    for doing in ("reading", "writing"):
        assert said[doing] == sorted(said[doing])
        assert (len(said[doing]) > 5, said[doing][-1]) == (True, 1.0)


def without(key: str) -> dict[str, Any]:
    return {name: part for name, part in coco([[(0, False)]] * 20).items() if name != key}


def broken(key: str, **changes: Any) -> dict[str, Any]:
    content = coco([[(0, False)]] * 20)
    content[key][3] |= changes
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (without("images"), "no list 'images'"),
        (without("annotations"), "no list 'annotations'"),
        (without("categories"), "no list 'categories'"),
        ({**without("images"), "images": {}}, "no list 'images'"),
        (broken("images", id=0), r"images\[3\] has the id 0 of another one"),
        (broken("annotations", id=0), r"annotations\[3\] has the id 0 of another one"),
        (broken("annotations", bbox=[1, 2]), r"annotations\[3\] has the bbox"),
        (broken("annotations", image_id=12345), "image 12345, which the file does not have"),
        (broken("annotations", image_id=[1]), r"has the image_id \[1\]"),
        (broken("annotations", category_id=9), "category 9, which the file does not have"),
        ({**coco([]), "categories": [{"id": 1, "name": "x"}] * 2}, "has the id 1 of another one"),
        ({**coco([]), "categories": []}, "has no categories"),
        (coco([[]] * 2), "too few images"),
        ([1, 2], "expected an object"),
    ],
)
def test_a_file_that_is_no_coco_file_is_named(tmp_path: Path, content: Any, said: str) -> None:
    source = write(tmp_path / "all.json", content)
    with pytest.raises(DataError, match=said) as caught:
        split_annotations(source, tmp_path / "out", RATIOS)
    assert caught.value.path == source
    assert [entry.name for entry in tmp_path.iterdir()] == ["all.json"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a" 1}', "Expecting ':'"),
        (b'{"a": 1,}', "Expecting property name"),
        (b'{"a": 1 "b": 2}', "Expecting ','"),
        (b'{"images": [{"id": 1} {"id": 2}]}', "Expecting ','"),
        (b'{"images": [{"id": 1},]}', "Expecting value"),
        (b'{"images": [', "Expecting value"),
        (b'{"a": "x', "Unterminated string"),
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_json_is_told(tmp_path: Path, data: bytes, said: str) -> None:
    source = tmp_path / "all.json"
    source.write_bytes(data)
    with pytest.raises(DataError, match=said):
        list(read_pieces(source, ("images",)))


def test_broken_json_is_found_where_it_is_and_not_at_the_end(tmp_path: Path) -> None:
    source = tmp_path / "all.json"
    source.write_text('{"images": [{"id": tru, "x": 1}' + ", 1" * 200_000 + "]}")
    read: list[int] = []
    with (
        patch.object(json_stream, "CHUNK", 100),
        pytest.raises(DataError, match=r"Expecting value \(character 19\)"),
    ):
        list(read_pieces(source, ("images",), read.append))
    assert read[-1] <= 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@FEW
@given(
    content=st.dictionaries(st.sampled_from(["a", "images", "é", ""]), json_values),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
    chunk=st.integers(1, 40),
)
def test_pieces_are_what_json_reads(
    content: dict[str, Any], indent: int | None, ascii_only: bool, chunk: int
) -> None:
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder, patch.object(json_stream, "CHUNK", chunk):
        text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
        source = Path(folder) / "any.json"
        source.write_bytes(text.encode("utf-8", "surrogatepass" if ascii_only else "replace"))
        wanted = json.loads(source.read_text(encoding="utf-8"))
        for piece in read_pieces(source, ("images",)):
            if piece.kind == "open":
                found[piece.key] = []
            elif piece.kind == "entry":
                assert len(found[piece.key]) == piece.number
                found[piece.key].append(piece.value)
            elif piece.kind == "value":
                found[piece.key] = piece.value
            if piece.text:
                assert json.loads(piece.text) == piece.value
    assert found == wanted


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = write(tmp_path / "all.json", coco([[(0, False)]] * 30))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(DataError, match="left as it is"):
        split_annotations(source, tmp_path / "out", RATIOS)
    with pytest.raises(DataError, match="left as it is"):
        split_annotations(source, source, RATIOS)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_half_a_split_is_never_left(tmp_path: Path) -> None:
    source = write(tmp_path / "all.json", coco([[(0, False)]] * 30))

    def stop(doing: str, share: float) -> None:
        if doing == "writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split_annotations(source, tmp_path / "out", RATIOS, 0, stop)
    assert [entry.name for entry in tmp_path.iterdir()] == ["all.json"]


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ({"a": 0.5, "b": 0.6}, "add up to 1.1"),
        ({"a": 1.0, "b": 0.0}, "ratio of b is 0"),
        ({"a": -0.1, "b": 0.5}, "ratio of a is -0.1"),
        ({"a": float("nan")}, "ratio of a is nan"),
        ({}, "add up to 0"),
    ],
)
def test_ratios_must_be_shares(tmp_path: Path, ratios: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        split_annotations(tmp_path / "all.json", tmp_path / "out", ratios)
