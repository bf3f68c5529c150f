"""How large the gradients of every layer are: where they shrink from layer to layer, the first ones learn nothing."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from engine.pictures import show
from engine.plots import lines

EVERY = 10  # steps between two looks


class GradientNorms(Callback):
    """Draws the norm of the gradient of every layer's weights over the training, as ``pictures/gradient_norms.png``."""

    def __init__(self) -> None:
        self.norms: dict[str, list[tuple[int, float]]] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        task: Any = pl_module
        if trainer.global_step % EVERY == 0:
            for name, parameter in task.net.named_parameters():
                if parameter.grad is not None and parameter.ndim > 1:
                    norm = float(parameter.grad.norm())
                    self.norms.setdefault(name.removesuffix(".weight"), []).append((trainer.global_step, norm))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.norms:
            show(pl_module, "gradient_norms", lines(self.norms, "norm of each layer's gradient"))

    def state_dict(self) -> dict[str, Any]:
        return {"norms": {name: list(points) for name, points in self.norms.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.norms = state_dict["norms"]
