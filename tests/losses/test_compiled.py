"""Compiled expressions: the numbers of the uncompiled ones, and what happens without a compiler."""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from losses import CATALOG, BoxExpressionLoss, apply_loss
from losses.branches import ExpressionBranch
from losses.compile_config import compile_expressions
from losses.compiled import CompiledFunction, cpp_compiler_problem
from primitives import SPACES, InputError, parse
from primitives.torch_eval import to_torch

Step = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch keeps what it has compiled; here all is compiled anew."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def boxes(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    corners = 50 * torch.rand(2, rows, 2, generator=generator)
    sizes = 5 + 50 * torch.rand(2, rows, 2, generator=generator)
    pred, target = torch.cat([corners, corners + sizes], dim=2)
    return pred.requires_grad_(), target


def step(loss: torch.nn.Module, rows: int) -> Step:
    """Value and gradient."""
    pred, target = boxes(rows)
    value = loss(pred, target)
    value.backward()
    assert pred.grad is not None
    return value.detach(), pred.grad


def box_losses() -> tuple[BoxExpressionLoss, BoxExpressionLoss]:
    branch = CATALOG["cse-autoloss-a"].bbox
    assert isinstance(branch, ExpressionBranch)
    return BoxExpressionLoss(branch.expression), BoxExpressionLoss(branch.expression, compile=True)


@pytest.mark.slow
@pytest.mark.skipif(cpp_compiler_problem() is not None, reason=str(cpp_compiler_problem()))
def test_compiled_losses_are_the_plain_ones_but_for_rounding() -> None:
    """At several numbers of rows, and without a warning that it runs uncompiled."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the loss runs uncompiled")
        plain, compiled = box_losses()
        for rows in (7, 100, 33):
            for expected, found in zip(step(plain, rows), step(compiled, rows), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reason", ["no-such-compiler", "it broke"])
def test_without_a_compiler_that_works_it_says_so_once_and_computes_as_ever(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"{reason}\nat great length")

    monkeypatch.setenv("CXX", "no-such-compiler" if reason == "no-such-compiler" else "sh")
    monkeypatch.setattr(torch, "compile", broken)
    plain, compiled = box_losses()
    with pytest.warns(RuntimeWarning, match=f"the loss runs uncompiled: .*{reason}.*$"):
        found = step(compiled, 9)
    assert all(map(torch.equal, found, step(plain, 9)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(map(torch.equal, step(copy.deepcopy(compiled), 5), step(plain, 5)))


def test_what_the_expression_itself_refuses_is_no_reason_to_give_up() -> None:
    function = CompiledFunction(to_torch(parse("Sub(U,I)", SPACES["box"])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="was not given"):
            function(U=torch.ones(3))


def test_every_expression_of_a_config_is_compiled_and_nothing_else(tiny_config) -> None:
    config = apply_loss(tiny_config("cascade"), CATALOG["cse-autoloss-a"])  # two heads
    assert compile_expressions(config.model) == 4
    heads = config.model.roi_head.bbox_head
    assert all(head.loss_cls["compile"] and head.loss_bbox["compile"] for head in heads)
    assert "compile" not in config.model.rpn_head.loss_cls
    stock = Config(apply_loss(tiny_config("atss"), CATALOG["default"]).to_dict())
    before = stock.to_dict()
    assert compile_expressions(stock.model) == 0
    assert stock.to_dict() == before
