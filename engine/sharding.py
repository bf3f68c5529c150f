"""Nets whose training does not fit one device: each of several keeps a share of the weights and what goes with them."""

from collections.abc import Mapping
from inspect import isfunction
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from engine.devices import PATIENCE
from engine.errors import UserError


class Sharded(DDPStrategy):
    """Of weights, gradients and the optimizer's states each device keeps its share (FSDP2).

    Blocks of a net, the members of a ``nn.ModuleList``, are put together one at a time while they are computed. While
    the net is measured it is whole on every device: how many steps a text takes that is generated differs from device
    to device, which could not wait for each other. Checkpoints are whole, and the same as those of one device.
    """

    def __init__(self) -> None:
        super().__init__(timeout=PATIENCE)

    @property
    def shards(self) -> list[FSDPModule]:
        """The parts of the net that are put together at once, the whole net first."""
        assert self.model is not None
        return [module for module in self.model.modules() if isinstance(module, FSDPModule)]

    def configure_ddp(self) -> None:
        """Share the net out, at the start of a training; DDP would wrap it here."""
        task: Any = self.lightning_module
        outside = [name for name, p in task.named_parameters() if p.requires_grad and not name.startswith("net.")]
        if outside or not task.automatic_optimization:
            raise UserError(
                f"{type(task).__name__} trains more than one net and cannot be sharded; leave out fsdp.yaml"
            )
        task.to(memory_format=torch.contiguous_format)
        for blocks in task.net.modules():
            for block in blocks if isinstance(blocks, nn.ModuleList) else ():
                others = [name for name, member in vars(type(block)).items() if isfunction(member) and name[0] != "_"]
                fully_shard(block)
                for name in set(others) - {"forward"}:  # whatever is called puts the block together first
                    register_fsdp_forward_method(block, name)
        fully_shard(task.net)

    def setup(self, trainer: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING or not self.shards:
            super().setup(trainer)
        else:  # behind a training; DDP would make all devices equal, which these are not
            assert self.accelerator is not None
            self.accelerator.setup(trainer)
            self.model_to_device()
            self.setup_precision_plugin()

    def put_together(self) -> None:
        """Make the net whole on every device."""
        for shard in self.shards:
            shard.set_reshard_after_forward(False, recurse=False)
            shard.unshard()

    def take_apart(self) -> None:
        """Let every device keep its share alone."""
        for shard in self.shards:
            shard.set_reshard_after_forward(True, recurse=False)
            shard.reshard()

    def on_validation_start(self) -> None:
        self.put_together()

    def on_validation_end(self) -> None:
        self.take_apart()

    def on_test_start(self) -> None:
        self.put_together()

    def on_test_end(self) -> None:
        self.take_apart()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return self.whole(super().lightning_module_state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        options = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(self.lightning_module, checkpoint["state_dict"], options=options)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return self.whole(super().optimizer_state(optimizer))

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state with whole tensors, outside of the device, in the process that writes; others keep nothing."""

        def collect(tensor: DTensor) -> torch.Tensor:
            full = tensor.full_tensor()
            return full.cpu() if self.is_global_zero else full.new_empty(0)

        return tree_map_only(DTensor, collect, state)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            shared = {place: like(parameters[place], values) for place, values in state["state"].items()}
            optimizer.load_state_dict({**state, "state": shared})


def like(parameter: torch.Tensor, values: dict[str, Any]) -> dict[str, Any]:
    """Return what an optimizer keeps of a parameter, in shares as the parameter's if it has the parameter's shape."""
    if not isinstance(parameter, DTensor):
        return values
    return {
        name: distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
        if value.shape == parameter.shape
        else value
        for name, value in values.items()
    }
