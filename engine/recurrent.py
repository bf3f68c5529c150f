"""Recurrent layers for an export: PyTorch's exporter would write down every step, for texts of one length only."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

# ONNX's names of the layers, and its order of the gates in PyTorch's numbers.
OPERATORS: dict[type[nn.RNNBase], tuple[str, list[int]]] = {
    nn.RNN: ("RNN", [0]),
    nn.GRU: ("GRU", [1, 0, 2]),
    nn.LSTM: ("LSTM", [0, 3, 1, 2]),
}


def exportable(module: nn.Module) -> nn.Module:
    """Return a copy whose recurrent layers are ``RecurrentOperator``s; it can be exported, but not be used itself."""
    module = copy.deepcopy(module)
    for name, layers in list(module.named_modules()):
        if type(layers) in OPERATORS:
            parent, _, place = name.rpartition(".")
            setattr(module.get_submodule(parent), place, RecurrentOperator(layers))
    return module


class RecurrentOperator(nn.Module):
    """Recurrent layers of PyTorch as operators of ONNX, which read sequences of any length.

    Args:
        layers: ``nn.RNN`` with tanh, ``nn.GRU`` or ``nn.LSTM``, without a projection.
    """

    def __init__(self, layers: nn.RNNBase) -> None:
        super().__init__()
        self.operator, gates = OPERATORS[type(layers)]
        self.batch_first, self.width = layers.batch_first, layers.hidden_size
        self.ways, self.num_states = 1 + layers.bidirectional, 2 if self.operator == "LSTM" else 1
        self.attributes: dict[str, Any] = {"hidden_size": self.width}
        self.attributes["direction"] = "bidirectional" if layers.bidirectional else "forward"
        if self.operator == "GRU":
            self.attributes["linear_before_reset"] = 1

        def arranged(name: str, layer: int) -> Tensor:
            """Return weights of all ways, (ways, gates * width, ...)."""
            ways = [f"{name}_l{layer}{end}" for end in ("", "_reverse")[: self.ways]]
            weights = (getattr(layers, way).detach().unflatten(0, (len(gates), self.width)) for way in ways)
            return torch.stack([weight[gates].flatten(0, 1) for weight in weights])

        self.inputs, self.states, self.biases = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for layer in range(layers.num_layers):
            self.inputs.append(arranged("weight_ih", layer))
            self.states.append(arranged("weight_hh", layer))
            self.biases.append(torch.cat([arranged("bias_ih", layer), arranged("bias_hh", layer)], dim=1))

    def forward(
        self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """Do what the layers do with sequences and a state, in the shapes that they have."""
        x = x.transpose(0, 1) if self.batch_first else x
        T, B, _ = x.shape
        given = (state,) if isinstance(state, Tensor) else state or ()
        ends: list[list[Tensor]] = []
        for layer, weights in enumerate(zip(self.inputs, self.states, self.biases, strict=True)):
            start = [part[layer * self.ways : (layer + 1) * self.ways] for part in given]
            shapes = [[T, self.ways, B, self.width], *[[self.ways, B, self.width]] * self.num_states]
            y, *end = torch.onnx.ops.symbolic_multi_out(
                self.operator,
                [x, *weights, None, *start],
                self.attributes,
                dtypes=[x.dtype] * (1 + self.num_states),
                shapes=shapes,
            )
            x = y.transpose(1, 2).flatten(2)  # (T, B, ways * width)
            ends.append(end)
        last = tuple(torch.cat(parts) for parts in zip(*ends, strict=True))
        return x.transpose(0, 1) if self.batch_first else x, last if self.num_states == 2 else last[0]
