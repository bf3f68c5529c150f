"""Networks of other libraries, finished by the same facts as ours."""

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torch.nn import functional as F


class SMPNet(nn.Module):
    """A network of segmentation_models_pytorch, https://github.com/qubvel-org/segmentation_models.pytorch.

    Args:
        in_channels: Channels of the input picture.
        out_channels: Channels of the output: classes to segment.
        name: Architecture, such as ``unet``, ``fpn`` or ``deeplabv3plus``.
        encoder: Name of the encoder, such as ``resnet18``.
        weights: Name of pretrained encoder weights, downloaded at the first use; None starts from random ones.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        name: str = "unet",
        encoder: str = "resnet18",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.net = smp.create_model(name, encoder, weights, in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to maps (B, out_channels, H, W)."""
        H, W = x.shape[-2:]
        x = F.pad(x, (0, -W % 32, 0, -H % 32), mode="replicate")  # the encoders halve five times
        return self.net(x)[..., :H, :W]
