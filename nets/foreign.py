"""Networks of other libraries, finished by the same facts as ours."""

from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models


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


class TorchvisionNet(nn.Module):
    """A classification network of torchvision with a new last layer, https://docs.pytorch.org/vision/stable/models.html.

    Args:
        in_channels: Channels of the input picture; grey ones become three equal channels.
        out_channels: Numbers that come out: classes.
        name: Architecture, such as ``resnet18`` or ``mobilenet_v3_small``.
        weights: Name of pretrained weights, such as ``DEFAULT`` or ``IMAGENET1K_V1``, downloaded at the first use; None
            starts from random ones.

    Attributes:
        mean: Mean of every channel that the weights expect, or None.
        std: Standard deviation that they expect.
    """

    mean: list[float] | None = None
    std: list[float] | None = None

    def __init__(self, in_channels: int, out_channels: int, name: str = "resnet18", weights: str | None = None) -> None:
        super().__init__()
        self.net = models.get_model(name, weights=weights)
        if weights:
            expected = models.get_model_weights(name)[weights].transforms()
            self.mean, self.std = expected.mean, expected.std
        self.path, last = [(path, layer) for path, layer in self.net.named_modules() if isinstance(layer, nn.Linear)][
            -1
        ]
        self.net.set_submodule(self.path, nn.Linear(last.in_features, out_channels))

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.net.get_submodule(self.path)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) to class logits (B, out_channels)."""
        return self.net(x.expand(-1, 3, -1, -1))


class TimmNet(nn.Module):
    """A classification network of timm, https://github.com/huggingface/pytorch-image-models, with a new last layer.

    Args:
        in_channels: Channels of the input picture; grey ones become three equal channels.
        out_channels: Numbers that come out: classes.
        name: Architecture, with or without the name of its weights: ``resnet18``, ``convnext_tiny.fb_in1k``.
        pretrained: Whether the weights are downloaded, at the first use; else random ones.

    Attributes:
        mean: Mean of every channel that the weights expect, or None.
        std: Standard deviation that they expect.
    """

    mean: list[float] | None = None
    std: list[float] | None = None

    def __init__(self, in_channels: int, out_channels: int, name: str = "resnet18", pretrained: bool = False) -> None:
        super().__init__()
        self.net: Any = timm.create_model(name, pretrained, num_classes=out_channels)
        if pretrained:
            config: Any = self.net.pretrained_cfg
            self.mean, self.std = list(config["mean"]), list(config["std"])

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.net.get_classifier()

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W), grey ones (B, 1, H, W) too, to class logits (B, out_channels)."""
        return self.net(x.expand(-1, 3, -1, -1))
