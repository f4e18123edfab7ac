"""Loss definitions: JSON both ways, identity, errors; and the catalogue of named ones."""

import copy
import json
import pickle
from pathlib import Path

import pytest

from losses import (
    CATALOG,
    DefinitionError,
    ExpressionBranch,
    LossDefinition,
    MissingOpError,
    StockBranch,
    UnsupportedHeadError,
    configs_dir,
    load_definition,
    space_role,
)
from primitives import SPACES, SearchSpace

DATA = {
    "name": "some",
    "cls": {
        "type": "expression",
        "space": "binary_cls",
        "expression": "Sub(Softplus(X),Mul(Q,X))",
        "alpha": 0.25,
        "loss_weight": 1.0,
    },
    "bbox": {"type": "stock", "loss": {"type": "GIoULoss", "eps": 1e-6}, "loss_weight": 2.0},
    "iou_centerness": False,
}


def changed(path, value, data=DATA):
    data = copy.deepcopy(data)
    *parents, last = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    place[last] = value
    return data


def test_json_both_ways():
    definition = LossDefinition.from_json(DATA)
    assert definition.to_json() == DATA
    assert LossDefinition.from_json(json.loads(json.dumps(definition.to_json()))) == definition
    assert hash(definition) == hash(LossDefinition.from_json(DATA))
    assert isinstance(definition.cls, ExpressionBranch)
    assert isinstance(definition.bbox, StockBranch)
    assert definition.expressions.keys() == {"cls"}
    with pytest.raises(AttributeError):
        definition.name = "other"


def test_left_out_fields_have_defaults():
    definition = LossDefinition.from_json({"name": "bare"})
    assert (definition.cls, definition.bbox, definition.iou_centerness) == (None, None, False)
    data = copy.deepcopy(DATA)
    del data["cls"]["alpha"], data["cls"]["loss_weight"]
    branch = LossDefinition.from_json(data).cls
    assert (branch.alpha, branch.loss_weight) == (0.25, None)
    assert LossDefinition.from_json(changed("cls.alpha", None)).cls.alpha is None


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ([], ""),
        ({}, "name"),
        (changed("name", " "), "name"),
        (changed("name", 3), "name"),
        (changed("extra", 1), "extra"),
        (changed("iou_centerness", 1), "iou_centerness"),
        (changed("cls", "expression"), "cls"),
        (changed("cls.type", "ranking"), "cls.loss"),
        (changed("cls.type", "magic"), "cls.type"),
        (changed("cls.type", ["stock"]), "cls.type"),
        (changed("cls.space", "ternary"), "cls.space"),
        (changed("cls.space", ["box"]), "cls.space"),
        (changed("cls.space", "box"), "cls.expression"),
        (changed("cls.space", {"name": "x"}), "cls.space"),
        (changed("cls.expression", "Sub(X"), "cls.expression"),
        (changed("cls.expression", 7), "cls.expression"),
        (changed("cls.alpha", 2), "cls.alpha"),
        (changed("cls.alpha", "x"), "cls.alpha"),
        (changed("cls.loss_weight", -1), "cls.loss_weight"),
        (changed("cls.loss_weight", float("nan")), "cls.loss_weight"),
        (changed("cls.loss_weight", True), "cls.loss_weight"),
        (changed("cls.weight", 1), "cls.weight"),
        (changed("bbox.loss", "GIoULoss"), "bbox.loss"),
        (changed("bbox.loss", {"eps": 1}), "bbox.loss"),
        (changed("bbox.loss.loss_weight", 1), "bbox.loss.loss_weight"),
        (changed("bbox.loss.eps", float("inf")), "bbox.loss"),
        (changed("bbox.loss.eps", {1}), "bbox.loss"),
        (
            changed(
                "bbox",
                {"type": "expression", "space": "multi_cls", "expression": "Dot(X,Y)"},
            ),
            "bbox.space",
        ),
        (
            changed("cls", {"type": "expression", "space": "box", "expression": "Div(I,U)"}),
            "cls.space",
        ),
        (
            changed(
                "bbox",
                {"type": "expression", "space": "box", "expression": "Div(I,U)", "alpha": 0.5},
            ),
            "bbox.alpha",
        ),
    ],
)
def test_errors_name_the_field(data, field):
    with pytest.raises(DefinitionError) as caught:
        LossDefinition.from_json(data)
    assert caught.value.field == field
    assert str(caught.value).startswith(field)


def test_key_is_the_identity_up_to_canonical_form():
    definition = LossDefinition.from_json(DATA)
    renamed = LossDefinition.from_json(changed("name", "other"))
    swapped = LossDefinition.from_json(
        changed("cls.expression", "Sub(Softplus(X),Mul(X,Neg(Neg(Q))))")
    )
    assert definition.key == renamed.key == swapped.key
    assert str(swapped.cls.expression) == "Sub(Softplus(X),Mul(X,Neg(Neg(Q))))"
    for path, value in [
        ("cls.expression", "Sub(Softplus(X),Mul(PY,X))"),
        ("cls.alpha", 0.5),
        ("cls.loss_weight", 2.0),
        ("bbox.loss.eps", 1e-5),
        ("bbox", None),
        ("iou_centerness", True),
    ]:
        assert LossDefinition.from_json(changed(path, value)).key != definition.key
    named = [d for d in CATALOG.values() if not d.name.startswith("discovered-")]
    assert len({d.key for d in named}) == len(named) >= 30


def test_with_branch():
    definition = LossDefinition.from_json(DATA)
    mixed = definition.with_branch("bbox", CATALOG["cse-autoloss-b"].bbox)
    assert mixed.cls == definition.cls
    assert mixed.bbox == CATALOG["cse-autoloss-b"].bbox
    assert definition.with_branch("cls", None).cls is None
    with pytest.raises(DefinitionError, match="cls, bbox"):
        definition.with_branch("mask", None)
    with pytest.raises(DefinitionError, match="box loss"):
        definition.with_branch("bbox", definition.cls)


def test_a_user_s_space_is_kept_as_json():
    space = SPACES["binary_cls"].to_json() | {"name": "mine", "constants": [7]}
    definition = LossDefinition.from_json(changed("cls.space", space))
    assert definition.to_json()["cls"]["space"] == space
    assert LossDefinition.from_json(definition.to_json()) == definition
    assert definition.cls.role == "binary_cls"


@pytest.mark.parametrize(
    ("inputs", "root", "role"),
    [
        ({"X": "per_class", "Y": "per_class"}, "per_row", "multi_cls"),
        ({"X": "per_class"}, "per_row", "multi_cls"),
        ({"X": "per_class"}, "per_class", "binary_cls"),
        ({"I": "per_row"}, "per_row", "box"),
        ({"X": "per_class", "W": "per_class"}, "per_class", None),
        ({"X": "per_row"}, "per_row", None),
        ({"U": "per_class"}, "per_class", None),
    ],
)
def test_role_of_a_user_s_space(inputs, root, role):
    space = SearchSpace.from_json(
        {
            "name": "mine",
            "inputs": inputs,
            "constants": [1],
            "operators": ["Add", "Dot"],
            "root": root,
        }
    )
    if role is None:
        with pytest.raises(DefinitionError, match="mine"):
            space_role(space)
    else:
        assert space_role(space) == role


def test_the_catalogue_has_the_named_losses():
    pairs = ("l1", "smooth-l1", "iou", "giou", "diou", "ciou")
    wanted = {f"{cls}-{box}" for cls in ("ce", "focal") for box in pairs}
    wanted |= {"cse-autoloss-a", "cse-autoloss-b", "qfl-giou", "vfl-giou"}
    wanted |= {"default", "default-iou-centerness"}
    assert wanted <= set(CATALOG)
    for path in (configs_dir() / "losses").glob("*.json"):
        assert load_definition(str(path)) == CATALOG[path.stem]
    assert CATALOG["cse-autoloss-b"].iou_centerness
    assert CATALOG["qfl-giou"].cls.alpha is None


def test_load_definition(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(DATA))
    assert load_definition(str(path)) == LossDefinition.from_json(DATA)
    assert load_definition("ce-giou") is CATALOG["ce-giou"]
    with pytest.raises(DefinitionError, match=r"'ce-guio'.*ce-giou"):
        load_definition("ce-guio")
    with pytest.raises(DefinitionError, match="cannot read"):
        load_definition(str(tmp_path / "none.json"))
    path.write_text("{")
    with pytest.raises(DefinitionError, match=r"mine\.json is not JSON"):
        load_definition(str(path))
    path.write_text("[" * 100_000)
    with pytest.raises(DefinitionError, match=r"mine\.json is not JSON"):
        load_definition(str(path))
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(DefinitionError, match=r"mine\.json is not JSON"):
        load_definition(str(path))
    path.write_text(json.dumps(changed("cls.alpha", 3)))
    with pytest.raises(DefinitionError, match=r"mine\.json.*cls\.alpha"):
        load_definition(str(path))


@pytest.mark.parametrize(
    "error",
    [
        DefinitionError("is wrong", "cls"),
        UnsupportedHeadError("GFLHead", ["FCOSHead"], "why"),
        MissingOpError("softnms"),
    ],
)
def test_errors_cross_process_borders(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
