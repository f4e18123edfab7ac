"""`lossforge verify`: exit status, numbers and JSON, by hand and by fuzzing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from primitives import SPACES
from search_server.cli.verify import verify

APP = typer.Typer(add_completion=False)
APP.command()(verify)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(APP, list(arguments))


@pytest.mark.parametrize(
    ("expression", "status", "shown"),
    [
        ("Sub(1,Div(I,U))", 0, "accepted"),
        ("Div(I,U)", 1, "wrong direction"),
        ("Sub(1,Div(I,W))", 2, "position"),
        ("", 2, "position"),
    ],
)
def test_exit_status_says_what_happened(expression: str, status: int, shown: str) -> None:
    result = run(expression, "--space", "box")
    assert result.exit_code == status
    assert shown in result.output


@pytest.mark.parametrize("expression", ["Sub(1,Div(I,U))", "Div(I,U)"])
def test_json_has_the_verdict_and_its_numbers(expression: str) -> None:
    result = run(expression, "--space", "box", "--json")
    answer = json.loads(result.stdout)
    assert answer["accepted"] == (result.exit_code == 0)
    assert answer["family"] == "box"
    assert answer["measures"]["size"] > 2


def test_a_space_of_ones_own_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    space = SPACES["box"].to_json() | {"name": "mine", "operators": ["Div", "Sub"]}
    path.write_text(json.dumps(space))
    assert run("Sub(1,Div(I,U))", "--space", str(path)).exit_code == 0
    assert run("Neg(Div(I,U))", "--space", str(path)).exit_code == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x"}', "[" * 100_000, None])
def test_a_bad_space_is_refused_without_a_traceback(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "space.json"
    if content is not None:
        path.write_text(content)
    result = run("Sub(1,Div(I,U))", "--space", str(path))
    assert result.exit_code == 2
    assert result.stderr.startswith("lossforge: ")
    assert len(result.stderr.splitlines()) == 1


@settings(max_examples=300, deadline=None)
@given(
    expression=st.one_of(
        st.text(max_size=60),
        st.text(alphabet="SubDivAdIUE(),123.[/]\n", max_size=40),
    ),
    space=st.one_of(st.sampled_from(sorted(SPACES)), st.text(max_size=8)),
)
def test_no_text_ends_in_a_traceback(expression: str, space: str) -> None:
    result = run(f"--space={space}", "--", expression)
    assert result.exit_code in (0, 1, 2)
    assert result.exception is None or isinstance(result.exception, SystemExit)
