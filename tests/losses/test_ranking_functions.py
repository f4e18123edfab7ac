"""The functions of parameterized AP loss: from parameters, from JSON and back, refusals."""

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import DefinitionError, PapFunctions
from losses.ranking import FUNCTIONS, gradient_scale, identity_theta

LINE = [[0.2, 0.2], [0.4, 0.4], [0.6, 0.6], [0.8, 0.8]]


def functions_json(**changes: object) -> dict[str, object]:
    return {**{name: copy.deepcopy(LINE) for name in FUNCTIONS}, **changes}


def test_the_released_start_is_the_identity() -> None:
    released = [0.2, 0.2, 0.25, 0.25, 1 / 3, 1 / 3, 0.5, 0.5] * 5
    assert identity_theta(4) == pytest.approx(released)
    functions = PapFunctions.from_theta(identity_theta(4))
    for name in FUNCTIONS:
        for point, wanted in zip(functions.points[name], LINE, strict=True):
            assert point == pytest.approx(wanted)


@pytest.mark.parametrize("points", [1, 2, 4, 16])
def test_identity(points: int) -> None:
    line = PapFunctions.identity(points)
    assert line.count == points
    assert [len(row) for row in line.rows()] == [2 * (points + 2)] * 5
    for row, other in zip(
        line.rows(), PapFunctions.from_theta(identity_theta(points), points).rows(), strict=True
    ):
        assert row[0::2] == row[1::2]
        assert (row[0], row[-1]) == (0.0, 1.0)
        assert other == pytest.approx(row)


def test_theta_goes_on_from_point_to_point_in_the_order_of_the_functions() -> None:
    theta = [0.5, 0.1, 0.5, 0.2] + [0.0] * 12 + [1.0] * 4
    functions = PapFunctions.from_theta(theta, points=2)
    assert functions.points["H2"][0] == (0.5, 0.1)
    assert functions.points["H2"][1] == pytest.approx((0.75, 0.28))
    assert functions.points["I1"] == ((0.0, 0.0), (0.0, 0.0))
    assert functions.points["H1"] == ((1.0, 1.0), (1.0, 1.0))
    assert functions.rows()[0][:4] == (0.0, 0.0, 0.5, 0.1)
    assert FUNCTIONS == ("H2", "I2", "I3", "I1", "H1")


@given(theta=st.lists(st.floats(0.0, 1.0), min_size=40, max_size=40))
@settings(max_examples=100, deadline=None)
def test_every_theta_gives_functions_that_survive_json(theta: list[float]) -> None:
    functions = PapFunctions.from_theta(theta)
    assert PapFunctions.from_json(functions.to_json()) == functions
    for row in functions.rows():
        for values in (row[0::2], row[1::2]):
            assert list(values) == sorted(values)
            assert (values[0], values[-1]) == (0.0, 1.0)


def test_a_value_object() -> None:
    functions = PapFunctions.from_json(functions_json())
    assert functions.to_json() == functions_json()
    for other in (pickle.loads(pickle.dumps(functions)), copy.deepcopy(functions)):
        assert other == functions
        assert hash(other) == hash(functions)
    assert functions != PapFunctions.identity(3)
    with pytest.raises(TypeError):
        functions.points["H2"] = ()  # type: ignore[index]


def test_gradient_scale() -> None:
    assert gradient_scale(0.0) == pytest.approx(0.1)
    assert gradient_scale(0.5) == 1.0
    assert gradient_scale(1.0) == pytest.approx(10.0)
    assert gradient_scale(0.8076) == pytest.approx(4.1231, abs=2e-3)  # the release's RetinaNet


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"H2": [[0.5, 0.5], [0.4, 0.6]]}, "functions.H2.1", "must not fall"),
        ({"I2": [[0.5, 0.5], [0.6, 0.4]]}, "functions.I2.1", "must not fall"),
        ({"I3": [[0.5, 1.5]]}, "functions.I3.0", r"in \[0, 1\], got \[0.5, 1.5\]"),
        ({"I3": [[float("nan"), 0.5]]}, "functions.I3.0", r"in \[0, 1\]"),
        ({"I1": [[0.5]]}, "functions.I1.0", r"must be a point \[x, y\]"),
        ({"I1": [["0.5", 0.5]]}, "functions.I1.0", "two numbers"),
        ({"I1": [[True, 0.5]]}, "functions.I1.0", "two numbers"),
        ({"H1": []}, "functions.H1", "1 to 16 points, got 0"),
        ({"H1": [[0.5, 0.5]] * 17}, "functions.H1", "1 to 16 points, got 17"),
        ({"H1": [[0.5, 0.5]]}, "functions.H1", "has 1 points where H2 has 4"),
        ({"H1": "0.5"}, "functions.H1", "must be a list"),
        ({"H3": LINE}, "functions.H3", "unknown function"),
    ],
)
def test_refused_json(change: dict[str, object], field: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as caught:
        PapFunctions.from_json(functions_json(**change))
    assert caught.value.field == field


def test_refused_otherwise() -> None:
    missing = functions_json()
    del missing["I3"]
    with pytest.raises(DefinitionError, match="is missing") as caught:
        PapFunctions.from_json(missing)
    assert caught.value.field == "functions.I3"
    with pytest.raises(DefinitionError, match="must be an object"):
        PapFunctions.from_json([LINE])  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="40 parameters, got 41"):
        PapFunctions.from_theta([0.5] * 41)
    with pytest.raises(DefinitionError, match=r"theta.7: must be in \[0, 1\], got 1.1"):
        PapFunctions.from_theta([0.5] * 7 + [1.1] + [0.5] * 32)
    for points in (0, 17, True, 2.0):
        with pytest.raises(DefinitionError, match="points"):
            PapFunctions.identity(points)  # type: ignore[arg-type]
