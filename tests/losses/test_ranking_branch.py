"""Ranking branches of a definition: JSON both ways, defaults, identity, errors; the named ones."""

import copy
import json
import pickle

import pytest

from losses import CATALOG, DefinitionError, LossDefinition, RankingBranch
from losses.ranking import FUNCTIONS, PapFunctions

POINTS = {name: [[0.1, 0.2], [0.5, 0.5], [0.75, 1.0]] for name in FUNCTIONS}
BRANCHES = {
    "ap": {"delta": 0.75, "loss_weight": 2.0},
    "alrp": {
        "delta": 0.25,
        "box_loss": "IoULoss",
        "box_weight": 0.5,
        "balance_start": 10.0,
        "balance_every": 7,
        "loss_weight": None,
    },
    "pap": {
        "functions": POINTS,
        "overlap": "iou",
        "num_topk": 100,
        "box_gradient_scale": 2.5,
        "all_processes": True,
        "loss_weight": 0.5,
    },
    "rank_sort": {"delta": 0.25, "box_loss": "IoULoss", "box_weight": None, "loss_weight": 1.0},
}
DEFAULTS = {
    "ap": {"delta": 1.0},
    "alrp": {
        "delta": 1.0,
        "box_loss": "GIoULoss",
        "box_weight": None,
        "balance_start": 50.0,
        "balance_every": 3665,
    },
    "pap": {
        "overlap": "giou",
        "num_topk": 100_000,
        "box_gradient_scale": 1.0,
        "all_processes": False,
    },
    "rank_sort": {"delta": 0.5, "box_loss": "GIoULoss", "box_weight": None},
}

# Searched control points and gradient scales, as published in the release's configs
RETINANET = (
    4.1231,
    """
    H2 (.4182,.0277)(.4948,.2187)(.6882,.2624)(.802,.6688)
    I2 (.1279,.3696)(.3056,.4708)(.5198,.529)(.6983,.6709)
    I3 (.0931,.0289)(.3607,.5585)(.4823,.7131)(.6291,.8162)
    I1 (.4914,.1499)(.5492,.1664)(.6259,.3051)(.7945,.6195)
    H1 (.413,.0798)(.4356,.3571)(.5361,.7063)(.8097,.9083)
    """,
)
FASTER_RPN = (
    1.6950,
    """
    H2 (.9058,.0484)(.9068,.5120)(.9232,.7286)(.9766,.9677)
    I2 (.3200,.1084)(.3493,.2482)(.4924,.3869)(.7231,.6510)
    I3 (.0935,.0419)(.2177,.1168)(.5857,.3748)(.7962,.6683)
    I1 (.0045,.3599)(.1295,.4603)(.7662,.5140)(.8483,.5259)
    H1 (.1764,.1081)(.5245,.4907)(.6956,.5668)(.7642,.8645)
    """,
)
FASTER_RCNN = (
    7.1324,
    """
    H2 (.3344,.0268)(.5460,.2461)(.8196,.6466)(.9467,.8617)
    I2 (.0978,.2019)(.4073,.3367)(.6337,.4689)(.7708,.6633)
    I3 (.2406,.0515)(.3358,.5259)(.6047,.6647)(.8575,.7792)
    I1 (.2574,.2363)(.5442,.5999)(.7165,.6548)(.8728,.8331)
    H1 (.1551,.2675)(.4902,.3957)(.7245,.5095)(.8068,.8720)
    """,
)


def data(loss, place="cls", /, **fields):
    branch = {"type": "ranking", "loss": loss, **BRANCHES[loss]} | fields
    return {"name": "ranks", "cls": None, "bbox": None, "iou_centerness": False, place: branch}


@pytest.mark.parametrize("place", ["cls", "rpn"])
@pytest.mark.parametrize("loss", BRANCHES)
def test_json_both_ways(loss, place):
    given = data(loss, place)
    definition = LossDefinition.from_json(given)
    assert definition.to_json() == given
    assert json.loads(json.dumps(definition.to_json())) == given
    assert LossDefinition.from_json(definition.to_json()) == definition
    assert pickle.loads(pickle.dumps(definition)) == definition
    assert hash(definition) == hash(LossDefinition.from_json(given))
    branch = definition.branch(place)
    assert isinstance(branch, RankingBranch)
    assert branch.loss == loss
    assert definition.expressions == {}
    with pytest.raises(AttributeError):
        branch.loss_weight = 3.0


@pytest.mark.parametrize("loss", DEFAULTS)
def test_left_out_fields_have_defaults(loss):
    bare = {"type": "ranking", "loss": loss} | ({"functions": POINTS} if loss == "pap" else {})
    branch = LossDefinition.from_json({"name": "bare", "cls": bare}).cls
    assert {name: getattr(branch, name) for name in DEFAULTS[loss]} == DEFAULTS[loss]
    assert branch.loss_weight is None
    assert branch.to_json() == bare | DEFAULTS[loss] | {"loss_weight": None}
    functions = PapFunctions.from_json(POINTS) if loss == "pap" else None
    assert RankingBranch(loss, functions=functions) == branch


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (data("ap", loss="ndcg"), "cls.loss"),
        (data("ap", loss=["ap"]), "cls.loss"),
        (data("ap", delta=0), "cls.delta"),
        (data("ap", delta="1"), "cls.delta"),
        (data("ap", delta=None), "cls.delta"),
        (data("ap", delta=float("nan")), "cls.delta"),
        (data("ap", "rpn", delta=-1), "rpn.delta"),
        (data("ap", delta=10**400), "cls.delta"),
        (data("pap", num_topk=10**400), "cls.num_topk"),
        (data("ap", loss_weight=-1), "cls.loss_weight"),
        (data("ap", box_loss="GIoULoss"), "cls.box_loss"),
        (data("ap", functions=POINTS), "cls.functions"),
        (data("alrp", box_loss="L1Loss"), "cls.box_loss"),
        (data("alrp", box_weight=-0.5), "cls.box_weight"),
        (data("alrp", balance_start=0), "cls.balance_start"),
        (data("alrp", balance_every=2.5), "cls.balance_every"),
        (data("alrp", balance_every=0), "cls.balance_every"),
        (data("alrp", balance_every=True), "cls.balance_every"),
        (data("rank_sort", balance_every=5), "cls.balance_every"),
        (data("pap", functions=None), "cls.functions"),
        (data("pap", functions=[POINTS]), "cls.functions"),
        (data("pap", functions={**POINTS, "H2": []}), "cls.functions.H2"),
        (data("pap", functions={**POINTS, "I1": POINTS["I1"][:2]}), "cls.functions.I1"),
        (data("pap", functions={**POINTS, "H3": POINTS["H1"]}), "cls.functions.H3"),
        (
            data("pap", "rpn", functions={n: POINTS[n] for n in FUNCTIONS if n != "I3"}),
            "rpn.functions.I3",
        ),
        (
            data("pap", functions={**POINTS, "I2": [[0.1, 0.2], [0.5, 0.1], [0.75, 1]]}),
            "cls.functions.I2.1",
        ),
        (data("pap", overlap="l2"), "cls.overlap"),
        (data("pap", num_topk=0), "cls.num_topk"),
        (data("pap", box_gradient_scale=0), "cls.box_gradient_scale"),
        (data("pap", all_processes=1), "cls.all_processes"),
        (data("pap", delta=1.0), "cls.delta"),
        (data("ap", "bbox"), "bbox.type"),
        (data("pap") | {"bbox": {"type": "stock", "loss": {"type": "L1Loss"}}}, "bbox"),
        (data("alrp") | {"bbox": {"type": "stock", "loss": {"type": "GIoULoss"}}}, "bbox"),
        (data("rank_sort") | {"bbox": {"type": "stock", "loss": {"type": "L1Loss"}}}, "bbox"),
        (data("ap") | {"iou_centerness": True}, "iou_centerness"),
        (data("ap") | {"rpn": {"type": "stock", "loss": {"type": "FocalLoss"}}}, "rpn.type"),
        (data("ap") | {"rpn": "pap"}, "rpn"),
    ],
)
def test_errors_name_the_field(given, field):
    with pytest.raises(DefinitionError) as caught:
        LossDefinition.from_json(given)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert str(caught.value).count(field) == 1


def test_a_function_that_is_missing_is_named_at_all():
    given = data("pap")
    del given["cls"]["functions"]
    with pytest.raises(DefinitionError) as caught:
        LossDefinition.from_json(given)
    assert caught.value.field == "cls.functions"


def test_a_branch_made_in_python_is_checked_too():
    with pytest.raises(DefinitionError, match="box_loss"):
        RankingBranch("ap", box_loss="GIoULoss")
    with pytest.raises(DefinitionError, match="functions"):
        RankingBranch("pap")
    with pytest.raises(DefinitionError, match="delta"):
        RankingBranch("rank_sort", delta=-1)
    assert RankingBranch("ap", delta=2) == RankingBranch("ap", delta=2.0)


def test_key_tells_ranking_losses_apart():
    base = LossDefinition.from_json(data("pap"))
    assert base.key == LossDefinition.from_json(data("pap") | {"name": "other"}).key
    moved = copy.deepcopy(POINTS)
    moved["H1"][0][0] = 0.11
    others = [
        data("pap", functions=moved),
        data("pap", box_gradient_scale=2.6),
        data("pap", num_topk=101),
        data("pap", "rpn"),
        data("pap") | {"rpn": data("pap", "rpn")["rpn"]},
        data("ap"),
    ]
    keys = {LossDefinition.from_json(other).key for other in others}
    assert len(keys) == len(others)
    assert base.key not in keys


def test_definitions_without_an_rpn_branch_are_known_by_the_keys_they_always_had():
    """Stores hold these keys: trials and candidates of older jobs are found by them."""
    assert CATALOG["focal-l1"].key == (
        '{"bbox":{"loss":{"type":"L1Loss"},"loss_weight":null,"type":"stock"},'
        '"cls":{"loss":{"alpha":0.25,"gamma":2.0,"type":"FocalLoss"},"loss_weight":null,'
        '"type":"stock"},"iou_centerness":false}'
    )
    for definition in CATALOG.values():
        assert ("rpn" in definition.to_json()) == (definition.rpn is not None)


def test_with_branch_takes_the_rpn_too():
    branch = CATALOG["pap-faster-rcnn"].rpn
    definition = CATALOG["ce-l1"].with_branch("rpn", branch)
    assert definition.rpn == branch
    assert definition.cls == CATALOG["ce-l1"].cls
    assert definition.with_branch("rpn", None).key == CATALOG["ce-l1"].key
    with pytest.raises(DefinitionError, match="bbox"):
        CATALOG["ce-l1"].with_branch("cls", branch)


def published(text):
    """Rows `x_0, y_0, x_1, ...` with their ends, from `NAME (x,y)(x,y)...` a line."""
    rows = {}
    for line in text.split("\n"):
        if line.strip():
            name, points = line.split()
            numbers = points[1:-1].replace(")(", ",").split(",")
            rows[name] = (0.0, 0.0, *map(float, numbers), 1.0, 1.0)
    return tuple(rows[name] for name in ("H2", "I2", "I3", "I1", "H1"))


@pytest.mark.parametrize(
    ("name", "place", "given"),
    [
        ("pap-retinanet", "cls", RETINANET),
        ("pap-faster-rcnn", "cls", FASTER_RCNN),
        ("pap-faster-rcnn", "rpn", FASTER_RPN),
    ],
)
def test_published_points_and_gradient_scales(name, place, given):
    scale, text = given
    branch = CATALOG[name].branch(place)
    assert branch.functions.rows() == published(text)
    assert branch.box_gradient_scale == scale
    assert (branch.num_topk, branch.overlap, branch.loss_weight) == (100_000, "giou", None)
    assert branch.all_processes is False


def test_identity_is_the_diagonal():
    faster = CATALOG["pap-identity-faster-rcnn"]
    assert CATALOG["pap-identity"].cls == faster.cls == faster.rpn
    assert CATALOG["pap-identity"].rpn is None
    assert faster.cls.box_gradient_scale == 1.0
    assert faster.cls.functions.count == 4
    for row in faster.cls.functions.rows():
        assert row[0::2] == row[1::2] == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def test_the_other_ranking_losses_of_the_catalogue():
    ap = CATALOG["ap-l1"]
    assert (ap.cls.loss, ap.cls.delta, ap.bbox.type) == ("ap", 1.0, "L1Loss")
    assert CATALOG["alrp"].cls == CATALOG["alrp-faster-rcnn"].cls == RankingBranch("alrp")
    assert CATALOG["rank-sort"].cls == CATALOG["rank-sort-faster-rcnn"].cls
    assert CATALOG["rank-sort"].cls == RankingBranch("rank_sort")
    # what the releases' configs amount to for the RPN: see docs of each loss
    rpn = CATALOG["alrp-faster-rcnn"].rpn
    assert (rpn.loss, rpn.delta, rpn.loss_weight, rpn.box_weight) == ("alrp", 0.2, 1.0, 0.2)
    rpn = CATALOG["rank-sort-faster-rcnn"].rpn
    assert (rpn.loss, rpn.delta, rpn.loss_weight, rpn.box_weight) == ("rank_sort", 0.5, 0.2, 0.2)
    assert CATALOG["alrp"].rpn is CATALOG["rank-sort"].rpn is CATALOG["ap-l1"].rpn is None


@pytest.mark.parametrize(
    ("name", "cls", "bbox"),
    [
        ("focal-l1", {"type": "FocalLoss", "gamma": 2.0, "alpha": 0.25}, "L1Loss"),
        ("focal-giou", {"type": "FocalLoss", "gamma": 2.0, "alpha": 0.25}, "GIoULoss"),
        ("ce-l1", {"type": "CrossEntropyLoss"}, "L1Loss"),
        ("ce-iou", {"type": "CrossEntropyLoss"}, "IoULoss"),
        ("ce-giou", {"type": "CrossEntropyLoss"}, "GIoULoss"),
    ],
)
def test_stock_baselines_of_both_tables(name, cls, bbox):
    definition = CATALOG[name]
    assert definition.cls.config == cls
    assert definition.bbox.type == bbox
    assert definition.cls.loss_weight is definition.bbox.loss_weight is None
