"""The stand-in for mmcv's compiled ops, against torchvision and by its own contract."""

import pkgutil
import subprocess
import sys
import textwrap

import mmcv.ops
import pytest
import torch
import torchvision
from mmcv.ops import RoIAlign, batched_nms, nms, soft_nms

from losses import MissingOpError
from losses.mmcv_ops import SUBSTITUTE_OPS, install_stand_in, mmcv_kind

pytestmark = pytest.mark.skipif(mmcv_kind() != "stand-in", reason="compiled mmcv is installed")


def run_python(code, *flags):
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def random_boxes(n, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 50
    size = torch.rand(n, 2, generator=g) * 30 + 1
    return torch.cat([corner, corner + size], 1).to(dtype), torch.rand(n, generator=g).to(dtype)


def test_the_module_looks_like_an_extension():
    assert pkgutil.find_loader("mmcv._ext") is not None
    assert mmcv.ops.nms is not None
    assert install_stand_in() is True, "a second call must change nothing"
    extension = sys.modules["mmcv._ext"]
    assert extension.__spec__.name == "mmcv._ext"
    assert not hasattr(extension, "__wrapped__")


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_is_torchvision_s(threshold):
    boxes, scores = random_boxes(200)
    dets, keep = nms(boxes, scores, threshold)
    expected = torchvision.ops.nms(boxes, scores, threshold)
    assert torch.equal(keep, expected)
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[expected])


def greedy_nms(boxes, scores, threshold, offset):
    kept = []
    for i in scores.argsort(descending=True).tolist():
        for j in kept:
            x1, y1 = torch.maximum(boxes[i, :2], boxes[j, :2])
            x2, y2 = torch.minimum(boxes[i, 2:], boxes[j, 2:])
            inter = (x2 - x1 + offset).clamp(min=0) * (y2 - y1 + offset).clamp(min=0)
            areas = [(b[2] - b[0] + offset) * (b[3] - b[1] + offset) for b in (boxes[i], boxes[j])]
            if inter / (areas[0] + areas[1] - inter) > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_offset_counts_the_last_pixel(offset):
    boxes, scores = random_boxes(60, seed=2)
    boxes = boxes.round()
    _, keep = nms(boxes, scores, 0.4, offset=offset)
    assert keep.tolist() == greedy_nms(boxes, scores, 0.4, offset)


def test_nms_limits_scores_number_and_dtype():
    boxes, scores = random_boxes(100, seed=1)
    dets, keep = nms(boxes, scores, 0.5, score_threshold=0.3, max_num=5)
    assert len(keep) == 5
    assert (dets[:, 4] > 0.3).all()
    assert nms(boxes[:0], scores[:0], 0.5)[1].shape == (0,)
    half = nms(boxes.half(), scores.half(), 0.5)[1]
    assert len(half) > 0
    as_array = nms(boxes.numpy(), scores.numpy(), 0.5)[1]
    assert as_array.tolist() == nms(boxes, scores, 0.5)[1].tolist()


def test_batched_nms_is_per_class():
    boxes, scores = random_boxes(120, seed=3)
    classes = torch.arange(120) % 4
    _, keep = batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.3})
    expected = torchvision.ops.batched_nms(boxes, scores, classes, 0.3)
    assert torch.equal(keep, expected)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_roi_align_value_and_gradient(aligned, sampling_ratio, scale):
    torch.manual_seed(0)
    features = torch.randn(2, 3, 16, 20, dtype=torch.float64)
    boxes, _ = random_boxes(7, dtype=torch.float64)
    rois = torch.cat([torch.tensor([0, 1, 1, 0, 1, 0, 0.0])[:, None].double(), boxes], 1)
    ours, theirs = (features.clone().requires_grad_() for _ in range(2))
    layer = RoIAlign((7, 5), scale, sampling_ratio, "avg", aligned)
    out = layer(ours, rois)
    expected = torchvision.ops.roi_align(theirs, rois, (7, 5), scale, sampling_ratio, aligned)
    assert torch.equal(out, expected)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_roi_align_of_half_precision_and_of_no_rois():
    features = torch.randn(1, 2, 8, 8).to(torch.bfloat16).requires_grad_()
    rois = torch.tensor([[0, 1.0, 1, 6, 6]])
    out = RoIAlign((3, 3), 1.0, 2)(features, rois.to(torch.bfloat16))
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert features.grad.dtype == torch.bfloat16
    assert features.grad.any()
    assert RoIAlign((3, 3), 1.0, 2)(features, rois[:0].to(torch.bfloat16)).shape == (0, 2, 3, 3)


def test_sigmoid_focal_loss_op_against_mmdet_s_python_form():
    """mmdet calls the op on CUDA only, so here it is called by name."""
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    torch.manual_seed(0)
    logits = (torch.randn(30, 4) * 4).requires_grad_()
    labels = torch.randint(0, 5, (30,))
    one_hot = torch.nn.functional.one_hot(labels, 5)[:, :4]
    expected = py_sigmoid_focal_loss(logits, one_hot, gamma=2.0, alpha=0.25, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    out, grad = torch.zeros_like(logits), torch.zeros_like(logits)
    with torch.no_grad():
        SUBSTITUTE_OPS["sigmoid_focal_loss_forward"](logits, labels, None, out, 2.0, 0.25)
        SUBSTITUTE_OPS["sigmoid_focal_loss_backward"](logits, labels, None, grad, 2.0, 0.25)
    torch.testing.assert_close(out, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, gradient, rtol=1e-5, atol=1e-6)
    class_weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    weighted = torch.zeros_like(logits)
    with torch.no_grad():
        SUBSTITUTE_OPS["sigmoid_focal_loss_forward"](
            logits, labels, class_weight, weighted, 2.0, 0.25
        )
    rows = labels < 4
    torch.testing.assert_close(weighted[rows], out[rows] * class_weight[labels[rows], None])


def test_a_missing_op_names_itself_and_the_cure():
    boxes, scores = random_boxes(5)
    with pytest.raises(MissingOpError, match=r"softnms.*pip install mmcv==") as caught:
        soft_nms(boxes, scores)
    assert caught.value.op == "softnms"
    with pytest.raises(MissingOpError, match="pool_mode='max'"):
        RoIAlign((3, 3), 1.0, 2, "max")(torch.zeros(1, 1, 8, 8), torch.tensor([[0.0, 1, 1, 6, 6]]))
    from mmcv.ops import DeformConv2d

    with pytest.raises(MissingOpError, match="deform_conv_forward"):
        DeformConv2d(1, 1, 3)(torch.zeros(1, 1, 8, 8), torch.zeros(1, 18, 6, 6))


@pytest.mark.slow
def test_mmdet_needs_the_stand_in_and_losses_brings_it():
    without = run_python("import mmdet.models")
    assert without.returncode != 0
    assert "_ext" in without.stderr
    with_it = run_python("import losses, mmdet.models, mmdet.apis")
    assert with_it.returncode == 0, with_it.stderr


@pytest.mark.slow
def test_a_failed_import_of_mmdet_can_be_repeated():
    done = run_python(
        """
        try:
            import mmdet.models
        except ImportError:
            pass
        import losses
        from mmdet.registry import MODELS
        import mmdet.models
        assert MODELS.get("FCOSHead") is not None
        """
    )
    assert done.returncode == 0, done.stderr


def test_compiled_mmcv_is_left_alone(tmp_path):
    """A folder that looks like compiled mmcv, without the extension ever being loaded."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('mmcv was imported')")
    suffix = __import__("importlib.machinery").machinery.EXTENSION_SUFFIXES[0]
    (package / f"_ext{suffix}").write_bytes(b"")
    done = run_python(
        f"""
        import sys, importlib.util
        sys.path.insert(0, {str(tmp_path)!r})
        import types
        here = importlib.util.find_spec("losses").submodule_search_locations
        package = types.ModuleType("losses"); package.__path__ = list(here)
        sys.modules["losses"] = package
        import losses.mmcv_ops as ops
        assert ops.mmcv_kind() == "compiled", ops.mmcv_kind()
        assert "mmcv._ext" not in sys.modules and "mmcv" not in sys.modules
        """
    )
    assert done.returncode == 0, done.stderr
