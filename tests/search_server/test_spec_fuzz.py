"""Whatever is thrown at the reader of job specs, only a `SpecError` comes out."""

import copy
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_server.errors import SpecError
from search_server.spec import JobSpec, parse_spec
from search_server.spec.loading import check_spec

FULL: dict[str, Any] = {
    "name": "fuzz",
    "detector": "digits/atss",
    "data": {
        "search_train": {"annotations": "a.json", "images": "a"},
        "search_val": {"annotations": "b.json", "images": "b"},
    },
    "branches": {
        "cls": {"space": "binary_cls", "alpha": 0.25, "loss_weight": 1.0},
        "bbox": {
            "space": {
                "name": "mine",
                "inputs": {"I": "per_row", "U": "per_row"},
                "constants": [1, 2],
                "operators": ["Add", "Div"],
                "root": "per_row",
            }
        },
    },
    "mode": "joint",
    "fixed": {},
    "iou_centerness": True,
    "baseline": {"cls": {"type": "stock", "loss": {"type": "FocalLoss"}}},
    "searcher": {"named": ["cse-autoloss-b", {"cls": "focal-expression"}], "population": 4},
    "funnel": {"verify": {"max_draws": 10}, "simulate": {"keep": 2}, "proxy": {"seeds": [0, 1]}},
    "candidates": 8,
    "window": 4,
    "resources": {"cpus": 1, "device": "cpu"},
    "limits": {"trial_seconds": 10},
    "seed": 1,
}
MANY = settings(
    max_examples=5_000,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1, 2**31, 10**30, 1e308, float("inf"), float("nan"), -0.0]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["box", "digits", "default", "cse-autoloss-a", "x.py", "\0", "../..", "*"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=8) | scalars, inner, max_size=4),
    ),
    max_leaves=10,
)


def paths(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for key, value in inner:
        found.append((*at, key))
        if isinstance(value, dict | list):
            found += paths(value, (*at, key))
    return found


PATHS = paths(FULL)


def read(text: str | bytes) -> JobSpec | SpecError:
    try:
        return parse_spec(text)
    except SpecError as error:
        return error


def test_the_seed_of_the_fuzz_is_a_spec() -> None:
    spec = read(yaml.safe_dump(FULL))
    assert isinstance(spec, JobSpec), spec


@pytest.mark.slow
@MANY
@given(st.lists(st.tuples(st.sampled_from(PATHS), values), min_size=1, max_size=3))
def test_a_spec_with_strange_values(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    data = copy.deepcopy(FULL)
    for path, value in changes:
        place: Any = data
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
        except (KeyError, TypeError, IndexError):
            continue
    try:
        found = check_spec(data, "spec")
    except SpecError:
        return
    assert JobSpec.from_json(found.to_json()) == found


@pytest.mark.slow
@MANY
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200),
        st.text(alphabet="{}[]:,-?&*!|>'\"%@`#ab01 \n\t.~", max_size=80),
        values.map(lambda value: yaml.safe_dump(value)),
    )
)
def test_any_text_at_all(text: str | bytes) -> None:
    read(text)


@pytest.mark.slow
@settings(MANY, max_examples=1_000)
@given(st.data())
def test_a_spec_with_damaged_text(data: st.DataObject) -> None:
    text = yaml.safe_dump(FULL)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    read(text[:start] + data.draw(st.text(max_size=12)) + text[end:])


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
        "a: &a\n  b: *a",
        "{" * 5000,
        "- " * 5000,
        "a: " + "9" * 5000,
        "a: 0x" + "f" * 100_000,
        "a: 1:" + ":".join(["59"] * 5000),
        "a: 2001-99-99",
        "a: 9999-12-31T23:59:59+99:99",
        "? [1, 2]\n: 3",
        "? {a: 1}\n: 3",
        "<<: 1",
        "<<: [1]",
        "a: !!binary '@'",
        "a: !!timestamp x",
        "a: !!int x",
        "a: !!int ''",
        "a: !!bool x",
        "a: !!float x",
        "a: !!set [1]",
        "a: !!omap 1",
        "!!map [1]: 2",
        "%YAML 9.9\n--- 1",
        "%TAG ! !",
        "a: \ud800",
        "\ufeff\ufeff",
        b"\xff\xfe\x00",
        b"\xff\xfea",
        "=: 1",
        "a: =",
    ],
)
def test_known_nastiness(text: str | bytes) -> None:
    assert isinstance(read(text), SpecError)
