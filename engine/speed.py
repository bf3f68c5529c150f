"""What makes a training faster without changing what it computes, and what half precision needs."""

from collections.abc import Callable
from contextlib import nullcontext
from types import MethodType
from typing import Any

import torch
import torch._functorch.config
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from torch import nn
from torch.backends import mkldnn

# Hooks that Lightning calls at every training step.
STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class NoProfiler(PassThroughProfiler):
    """Measures nothing, like Lightning's own, which makes a context at every hook for it: a tenth of a tiny step."""

    def profile(self, action_name: str) -> Any:
        return nullcontext()


def skip_idle_hooks(trainer: Trainer, task: LightningModule) -> None:
    """Let Lightning pass over the hooks in which callbacks and task do nothing; it calls what can be called."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    for owner, base in [(task, LightningModule), *((callback, Callback) for callback in callbacks)]:
        for hook in STEP_HOOKS:
            if getattr(getattr(owner, hook), "__func__", None) is getattr(base, hook):
                vars(owner)[hook] = None


class CompileNets(Callback):
    """Compiles the nets of a task in place, so that the names in checkpoints stay.

    Compiling takes up to a minute at the start; on a CPU it gains about a tenth, so it is meant for GPUs.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            torch._functorch.config.donated_buffer = False  # nets that take turns may go back through a graph twice
            for net in pl_module.children():
                if type(net).__module__.startswith("nets."):
                    net.compile()


def slow_precision(precision: str, device: torch.device) -> bool:
    """Tell whether half precision would only cost time here: the CPU has no units for it."""
    if not precision.startswith("bf16") or device.type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return not (able.get("avx512_bf16") or able.get("amx_bf16"))


def spare_lstms(task: nn.Module) -> None:
    """Let LSTMs do without oneDNN, which refuses them in bf16 where the CPU has no units for it; torch does not."""

    def switch(enabled: bool) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            mkldnn.set_flags(enabled)

        return hook

    for module in task.modules():
        if isinstance(module, nn.LSTM):
            module.register_forward_pre_hook(switch(False))
            module.register_forward_hook(switch(True), always_call=True)


def clip_unscaled(precision: Precision) -> None:
    """Let gradients be clipped before fused optimizers in bf16, where nothing is scaled (Lightning's issue 21435)."""
    if isinstance(precision, MixedPrecision) and precision.scaler is None:
        vars(precision)["clip_gradients"] = MethodType(Precision.clip_gradients, precision)
