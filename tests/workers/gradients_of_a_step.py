"""Gradients of one training step on `lossforge train`'s own path, alone or as one of two processes.

Run by torchrun as ``python gradients_of_a_step.py CASES.json OUT``: each case is a config file, a
loss definition and the file that this process's gradients go into, after they were averaged.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from losses import LossDefinition
from search_server.full_training import Training, train_fully
from search_server.training_process import leave
from workers.joining import gathering, join_on_cpu


class Catch(Hook):
    """Keeps the gradients that the optimiser gets at the first step."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def before_train(self, runner: Any) -> None:
        """Attaches to the optimiser."""
        model = getattr(runner.model, "module", runner.model)

        def keep(*_: Any) -> None:
            self.gradients = {
                name: value.grad.double().clone()
                for name, value in model.named_parameters()
                if value.grad is not None
            }

        runner.optim_wrapper.optimizer.register_step_pre_hook(keep)


def gradients(
    config: str, definition: dict, folder: Path, options: tuple[str, ...], together: bool
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradients of the first step, and what the evaluation after the last one found."""
    catch = Catch()
    loss = LossDefinition.from_json(definition)
    training = Training(config, loss, steps=1, seed=3, options=options)

    def adapt(config: Config) -> None:
        # mmengine writes the config down; laying it out prettily takes longer than all the rest
        object.__setattr__(config, "_format_python_code", False)
        if together:
            join_on_cpu(config)

    hooks = [catch, gathering(folder / "g")] if together else [catch]
    trained = train_fully(training, folder, lambda text: None, adapt, hooks)
    return catch.gradients, trained.metrics


def main(cases: Path, out: Path) -> None:
    """All cases one after the other, with the other process."""
    torch.set_num_threads(1)
    gc.freeze()  # see the tests' conftest
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for name, case in json.loads(cases.read_text()).items():
        found = gradients(case["config"], case["definition"], out / name, (), together=True)
        torch.save(found, out / f"{name}-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    leave(0)
