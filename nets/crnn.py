"""An End-to-End Trainable Neural Network for Image-based Sequence Recognition (Shi et al. 2015, arXiv:1507.05717).

Differs from the paper: a gated recurrent unit in the place of the LSTM, and a shortcut past it, so that the letters
that the convolutions see reach the answer before the recurrent part has learnt anything.
"""

from torch import Tensor, nn


def conv(in_channels: int, out_channels: int, stride: tuple[int, int]) -> nn.Sequential:
    """A 3x3 convolution with batch norm and ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class CRNN(nn.Module):
    """Convolutions make columns of features of a picture; a recurrent net reads them from both sides.

    Args:
        in_channels: Channels of a picture.
        num_outputs: Number of characters, and one for the blank between them.
        width: Channels of the first convolution.
        hidden: Numbers of the state in each direction.
    """

    def __init__(self, in_channels: int, num_outputs: int, width: int = 24, hidden: int = 96) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, w, 5, 2, padding=2, bias=False), nn.BatchNorm2d(w), nn.ReLU(inplace=True)
        )
        sizes = [(w, 2 * w, (2, 2)), (2 * w, 3 * w, (2, 2)), (3 * w, 3 * w, (1, 1)), (3 * w, 4 * w, (2, 1))]
        self.convolutions = nn.Sequential(*(conv(*layer) for layer in sizes))
        self.gru = nn.GRU(4 * w, hidden, batch_first=True, bidirectional=True)
        self.shortcut = nn.Linear(4 * w, 2 * hidden)
        self.head = nn.Linear(2 * hidden, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to logits (B, W / 8, num_outputs)."""
        columns = self.convolutions(self.stem(x)).amax(2).transpose(1, 2)  # (B, W / 8, 4 width)
        return self.head(self.gru(columns)[0] + self.shortcut(columns))
