"""NLinear: Are Transformers Effective for Time Series Forecasting?, https://arxiv.org/abs/2205.13504.

Differs from the paper: one series is forecast from any number of them, and the weights start at zero, so that the net
starts by forecasting no change.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class NLinear(nn.Module):
    """A linear layer over time, from the values less the last one.

    Args:
        num_features: Series that are read.
        num_outputs: Steps to be forecast.
        window: Steps that are read, the last ones; where there are fewer, the first is taken for those before it.
    """

    def __init__(self, num_features: int, num_outputs: int, window: int = 30) -> None:
        super().__init__()
        self.window = window
        self.linear = nn.Linear(window * num_features, num_outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map series (B, T, num_features) to changes from the last step (B, num_outputs)."""
        x = (x - x[:, -1:]).transpose(1, 2)  # (B, num_features, T)
        x = F.pad(x, (self.window - 1, 0), mode="replicate")[:, :, -self.window :]
        return self.linear(x.flatten(1))
