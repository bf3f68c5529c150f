"""What makes a net faster without changing what it computes."""

import torch
import torch._functorch.config
from lightning.pytorch import Callback, LightningModule, Trainer


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
