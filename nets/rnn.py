"""Recurrent nets: Elman 1990, https://doi.org/10.1207/s15516709cog1402_1, and two that forget less.

They are LSTM (Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735) and GRU (Cho et al. 2014,
https://arxiv.org/abs/1406.1078).

Differs from the papers: the output starts at zero, which for a forecast of changes is persistence.
"""

from typing import Literal

from torch import Tensor, nn

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RNN(nn.Module):
    """Recurrent layers, and a linear one that reads what they hold at the last step.

    Args:
        num_features: Numbers at every step.
        num_outputs: Numbers that come out.
        cell: Kind of the recurrent layers.
        width: Numbers that a recurrent layer holds.
        depth: Recurrent layers.
        dropout: Share of held values set to zero in training, behind every layer.
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        cell: Literal["rnn", "lstm", "gru"] = "gru",
        width: int = 32,
        depth: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        between = dropout if depth > 1 else 0.0
        self.layers = CELLS[cell](num_features, width, depth, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map series (B, T, num_features) to outputs (B, num_outputs)."""
        x, _ = self.layers(x)
        return self.head(self.dropout(x[:, -1]))
