"""What a trial may take of a GPU that it shares; the bound itself needs a GPU."""

import pytest
import torch

from workers.gpu_share import GPU_SHARE, hold_to_share, share_of_gpu


def test_only_a_part_of_a_gpu_is_a_share() -> None:
    assert share_of_gpu(0.25) == {GPU_SHARE: "0.25"}
    assert share_of_gpu(0.0) == share_of_gpu(1.0) == share_of_gpu(2.0) == {}


def test_nothing_is_bound_where_nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GPU_SHARE, raising=False)
    assert hold_to_share() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_who_takes_more_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GPU_SHARE, "0.1")
    assert hold_to_share() == 0.1
    total = torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(torch.cuda.OutOfMemoryError):
        torch.empty(total // 5, dtype=torch.uint8, device="cuda")
    torch.cuda.set_per_process_memory_fraction(1.0)
