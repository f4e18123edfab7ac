"""The package as a whole: a light import, pickling, LaTeX, and the benchmark's ratio."""

from __future__ import annotations

import ast
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

import primitives
from primitives import (
    SPACES,
    ExpressionSyntaxError,
    InputError,
    PrimitivesError,
    SpaceError,
    grow,
    parse,
    to_latex,
)

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "bench_primitives.py"


def test_the_import_needs_neither_torch_nor_scipy() -> None:
    code = (
        "import sys, primitives as p\n"
        "e = p.parse('Serf(X)', 'binary_cls'); p.evaluate(e, {'X': [[1.0]]}, {'X': 1.0})\n"
        "print([m for m in ('torch', 'scipy', 'sympy', 'mmdet') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_everything_public_exists() -> None:
    assert all(hasattr(primitives, name) for name in primitives.__all__)


def test_expressions_survive_pickling_into_another_process() -> None:
    expression = parse("Add(X,Mul(Sig(X),2))", "binary_cls")
    code = (
        "import sys, pickle, primitives as p\n"
        "e = pickle.load(sys.stdin.buffer)\n"
        "f = p.parse(str(e), 'binary_cls')\n"
        "assert e == f and hash(e) == hash(f) and len({e, f}) == 1\n"
        "sys.stdout.buffer.write(pickle.dumps(f))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(expression),
        capture_output=True,
        check=True,
        timeout=60,
    )
    again = pickle.loads(done.stdout)
    assert again == expression
    assert hash(again) == hash(expression)


@pytest.mark.parametrize(
    "make",
    [
        lambda: parse("Add(X,", "binary_cls"),
        lambda: parse("1", "binary_cls"),
        lambda: parse("X" * 20_000, "binary_cls"),
        lambda: parse("X", "none"),
        lambda: primitives.evaluate(parse("X", "binary_cls"), {}, {}),
    ],
)
def test_errors_survive_pickling(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PrimitivesError) as caught:
        make()
    error = caught.value
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_all_errors_are_of_one_family() -> None:
    for kind in (ExpressionSyntaxError, InputError, SpaceError):
        assert issubclass(kind, PrimitivesError)


@pytest.mark.parametrize(
    ("text", "space", "latex"),
    [
        ("Add(X,Neg(Q))", "binary_cls", "X - Q"),
        ("Add(X,-2)", "binary_cls", "X - 2"),
        ("Sub(X,Add(Q,1))", "binary_cls", r"X - \left(Q + 1\right)"),
        ("Mul(X,Neg(Q))", "binary_cls", r"X \, \left(-Q\right)"),
        ("Neg(Add(X,Q))", "binary_cls", r"-\left(X + Q\right)"),
        ("Div(Add(I,1),U)", "box", r"\frac{I + 1}{U}"),
        ("Mul(PY,1e-10)", "binary_cls", r"\mathrm{PY} \, 1 \cdot 10^{-10}"),
        ("Exp(Sqrt(X))", "binary_cls", r"e^{\sqrt{X}}"),
    ],
)
def test_latex(text: str, space: str, latex: str) -> None:
    expression = parse(text, space)
    assert to_latex(expression) == latex
    assert expression.latex() == latex


def test_latex_of_random_expressions_is_drawn_by_matplotlib() -> None:
    parser = MathTextParser("path")
    rng = np.random.default_rng(0)
    for space in SPACES.values():
        for _ in range(40):
            parser.parse(f"${grow(space, rng, 2, 5).latex()}$")


def test_the_benchmark_runs_and_beats_its_peer() -> None:
    spec = importlib.util.spec_from_file_location("bench_primitives", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.measure(count=400, repeats=3)
    assert result["ratio"] > 2.0  # about 5 on a quiet machine


def test_module_level_names_are_unique() -> None:
    """Modules are joined into one file by the self-contained export."""
    owners: dict[str, str] = {}
    for path in sorted(Path(primitives.__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            names = [getattr(node, "name", None), *(getattr(t, "id", None) for t in targets)]
            for name in filter(None, names):
                if name != "__all__":
                    assert owners.setdefault(name, path.name) == path.name, name
