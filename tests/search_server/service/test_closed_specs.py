"""A spec that somebody sends reads no file, imports no module and asks no address, whatever field a
name is put into."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from losses import DefinitionError, LossDefinition
from search_server.service.admission import admitted, admitted_fields
from search_server.service.problems import Problem
from search_server.service.settings import ServiceSettings
from search_server.spec import JobSpec
from search_server.spec.branches import BranchSpec, ClsSpec
from search_server.spec.policy import PapSpec, PolicySearcher
from search_server.spec.tuning import HandmadeSpec, TuningSearcher

MARK = "lossforge_audit"
SETTINGS = ServiceSettings()
BASE: dict[str, Any] = {
    "name": "audit",
    "detector": "digits/atss",
    "data": "digits",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
}
# What tells a member of a union from the others.
TAGS: dict[type[BaseModel], dict[str, Any]] = {
    ClsSpec: {"space": "binary_cls"},
    BranchSpec: {"space": "box"},
    PapSpec: {"space": "pap"},
    HandmadeSpec: {"space": "handmade", "losses": ["focal"], "loss_weight": 1.0},
    PolicySearcher: {"type": "policy"},
    TuningSearcher: {"type": "tuning", "centerness": [False]},
}
FREE = {"name"}  # text for people, which leads nowhere


def test_every_field_refuses_a_file_a_module_and_an_address(touched: list[str], pipe: Path) -> None:
    places = list(_places(JobSpec, (), {}))
    assert len(places) > 80
    named = {".".join(path) for path, _ in places}
    assert {"searcher.named", "funnel.confirm.rivals", "fixed", "baseline", "data"} <= named
    names = [str(pipe), str(pipe.with_suffix(".py")), f"{MARK}.module.Thing"]
    names += [f"file://{pipe}", f"http://127.0.0.1:9/{MARK}.json", f"../../{MARK}.json"]
    for path, given in places:
        field = ".".join(path)
        for name in names:
            if field in FREE:
                continue
            for value in (name, [name], {"cls": name}):
                spec = _with(given, path, value)
                with pytest.raises(Problem) as refused:
                    admitted_fields(spec, SETTINGS)
                assert refused.value.status == 422
                found = [each.field for each in refused.value.errors]
                assert any(_about(each, field) for each in found), (field, value, found)
    assert touched == []


@pytest.mark.parametrize(
    "loss",
    [
        {"type": f"{MARK}.evil.FocalLoss"},
        {"type": "FocalLoss", "_scope_": f"{MARK}"},
        {"type": "os.system"},
        {"type": "mmdet.models.losses.FocalLoss"},
    ],
)
@pytest.mark.parametrize("place", ["baseline", "fixed", "searcher.named", "funnel.confirm.rivals"])
def test_no_loss_names_a_module(touched: list[str], loss: dict[str, Any], place: str) -> None:
    branch = {"type": "stock", "loss": loss}
    definition = {"name": "x", "cls": branch}
    with pytest.raises(DefinitionError):
        LossDefinition.from_json(definition)
    values: dict[str, Any] = {
        "baseline": definition,
        "fixed": {"cls": branch},
        "searcher.named": [definition],
        "funnel.confirm.rivals": [definition],
    }
    base = {**BASE, "branches": {"bbox": {"space": "box"}}}
    with pytest.raises(Problem) as refused:
        admitted_fields(_with(base, tuple(place.split(".")), values[place]), SETTINGS)
    assert place in refused.value.errors[0].field
    assert touched == []


def test_what_was_tried_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Problem):
        admitted_fields({**BASE, "detector": f"/{MARK}\n.py"}, SETTINGS)
    assert "refused 422 a spec" in caplog.text
    assert "'detector'" in caplog.text
    assert f"{MARK}\\n" in caplog.text  # on one line


def test_names_are_those_of_the_settings(tmp_path: Path) -> None:
    split = {"annotations": f"{tmp_path}/a.json", "images": f"{tmp_path}/images"}
    settings = ServiceSettings.model_validate(
        {
            "detectors": {"ours": f"{tmp_path}/detector.py", "theirs": "digits/fcos"},
            "data": {"street": {"search_train": split, "search_val": split}},
        }
    )
    spec = admitted_fields({**BASE, "detector": "ours", "data": "street"}, settings)
    assert spec.detector == f"{tmp_path}/detector.py"
    assert spec.to_json()["data"]["search_train"] == split
    for field, value in (
        ("detector", f"{tmp_path}/detector.py"),  # what is meant by a name is no name
        ("detector", "digits/fcos"),
        ("data", "digits"),
        ("data", {"search_train": split, "search_val": split}),
        ("data", None),
    ):
        with pytest.raises(Problem) as refused:
            admitted_fields({**BASE, "detector": "ours", "data": "street", field: value}, settings)
        assert [each.field for each in refused.value.errors] == [field]
    with pytest.raises(Problem) as refused:
        admitted_fields({k: v for k, v in BASE.items() if k != "data"}, settings)
    assert "data" in {each.field for each in refused.value.errors}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"[" * 50_000, "json"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "json"),
        (b"[" * 50_000, "yaml"),
        (b"a: &a [x]\nb: *a", "yaml"),
        (b"seed: 0x" + b"f" * 9000, "yaml"),
        (b'{"seed": ' + b"9" * 9000 + b"}", "json"),
        (b'{"name": "\\ud800", "detector": "\\udfff"}', "json"),
        (b'{"seed": NaN}', "json"),
        (b"\xff\xfe", "json"),
        (b"\x00", "yaml"),
        (b"!!python/object/apply:os.system ['true']", "yaml"),
        (b"1: 2\n? [a]\n: b", "yaml"),
        (b"", "yaml"),
        (b"", "json"),
    ],
)
def test_what_is_no_spec_is_refused_in_words(content: bytes, kind: Any) -> None:
    with pytest.raises(Problem) as refused:
        admitted(content, kind, SETTINGS)
    assert refused.value.status == 422
    for each in refused.value.errors:
        f"{each.field}{each.value}{each.allowed}".encode()


def test_a_spec_is_short() -> None:
    with pytest.raises(Problem) as refused:
        admitted(b"#" * 70_000, "yaml", SETTINGS)
    assert refused.value.status == 413


def _about(found: str, field: str) -> bool:
    """Whether an error is about a field, a part of it, or the part that holds it."""
    return (
        found == field or found.startswith(f"{field}.") or (found != "" and field.startswith(found))
    )


def _with(spec: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    inner = _with(spec.get(first) or {}, tuple(rest), value) if rest else value
    return {**spec, first: inner}


def _places(
    model: type[BaseModel], path: tuple[str, ...], given: dict[str, Any]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every field of a spec, however deep, each with a spec that it can be put into."""
    for name, field in model.model_fields.items():
        here = (*path, name)
        yield here, _filled(given)
        for inner in _models(field.annotation, field.metadata):
            tag = TAGS.get(inner, {})
            yield from _places(inner, here, _with(given, here, tag))


def _filled(given: dict[str, Any]) -> dict[str, Any]:
    """A whole spec around a part of one."""
    if "branches" in given and not given["branches"].get("cls"):
        given = {**given, "branches": {**BASE["branches"], **given["branches"]}}
    return {**BASE, **given}


def _models(annotation: Any, _: Any = None) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType, tuple, list, dict):
        for inner in get_args(annotation):
            yield from _models(inner)


_HEARD: list[str] = []


def _hear(event: str, given: tuple[Any, ...]) -> None:
    if event in ("open", "import", "socket.connect", "os.listdir", "os.scandir", "exec", "compile"):
        _HEARD.extend(f"{event} {each}" for each in given[:2] if MARK in str(each))


@pytest.fixture
def touched() -> list[str]:
    """What has been opened, imported or asked since the test began, of what bears the mark."""
    if not getattr(sys, "_lossforge_hears", False):
        sys.addaudithook(_hear)
        sys._lossforge_hears = True  # type: ignore[attr-defined]
    _HEARD.clear()
    return _HEARD


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A file that whoever reads it would wait for without end."""
    made = tmp_path / f"{MARK}.json"
    os.mkfifo(made)
    os.mkfifo(made.with_suffix(".py"))
    return made
