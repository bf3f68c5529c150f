"""How different two pictures look: distances between what nets see in them, by nets of ours and of others."""

from collections.abc import Sequence
from pathlib import Path

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
from torchvision.models import AlexNet_Weights, VGG19_Weights, vgg19

# What one net of ours is taught to tell apart: every sharpness with every strength of noise.
BLURS = (0.0, 0.6, 1.0, 2.0)  # standard deviations in pixels
BLOCKS = (2, 4)  # sides in pixels
NOISES = (2.0, 8.0, 25.0)  # standard deviations in 255ths; the least hides what nobody sees
KINDS = (len(BLURS) + len(BLOCKS)) * len(NOISES)

# What the other is taught to tell apart: windows, of which it sees a part each time, in another light and with noise.
EXEMPLARS = (64, 48)  # how many, and their side
SEEN, GAIN, LIGHT, GRAIN = 32, 0.2, 0.1, 3.0  # side of the part; strengths, of which the last is in 255ths

FAINT = 1e-3  # length below which the features of a place are not made longer


class PerceptualDistance(nn.Module):
    """A distance between pictures in the manner of LPIPS, https://arxiv.org/abs/1801.03924.

    The features of a place have length 1 in every stage of a net; the distance is the square of their difference, the
    mean over places and stages. 0 means that the net sees no difference, 4 is the most.

    Differs from the paper: all features weigh the same, since we have no people to ask.

    Args:
        layers: Layers of a net that has learned something; a stage ends before each ``MaxPool2d``.
        mean: What the net expects to be taken away from every channel, in [0, 1]; it then has three.
        std: What it expects to be divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: nn.Sequential, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        self.layers = layers.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.eval()  # the trainer leaves every module in the mode that it finds it in

    def train(self, mode: bool = True) -> "PerceptualDistance":
        """Stay as it was taught, whatever happens around it."""
        return super().train(False)

    def stages(self, pictures: Tensor) -> list[Tensor]:
        """Return the features of pictures (B, C, H, W) in every stage, each (B, features, H', W')."""
        x, seen = (pictures - self.mean) / self.std, []
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                seen.append(F.normalize(x, dim=1, eps=FAINT))
            elif isinstance(layer, nn.AdaptiveAvgPool2d):
                break
            x = layer(x)
        return seen

    def forward(self, pictures: Tensor, truth: Tensor) -> Tensor:
        """Map two batches of pictures (B, C, H, W) in [0, 1] to their distances (B,), in full precision."""
        with torch.autocast(pictures.device.type, enabled=False):
            pairs = zip(self.stages(pictures.float()), self.stages(truth.float()), strict=True)
            return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).mean(0)


def exemplars(pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return parts of pictures (B, C, H, W) in [0, 1], in another light and with noise, and which they are (B,).

    To know a window again wherever one looks in it (Dosovitskiy et al. 2014, https://arxiv.org/abs/1406.6909) is to see
    textures, edges and colours.
    """
    top, left = (int(torch.randint(side - SEEN + 1, ())) for side in pictures.shape[2:])
    seen = pictures[..., top : top + SEEN, left : left + SEEN]
    gain, light = torch.rand(2, len(seen), 1, 1, 1, device=seen.device) * 2 - 1
    noise = GRAIN / 255 * torch.randn_like(seen)
    return (seen * (1 + GAIN * gain) + LIGHT * light + noise).clamp(0, 1), labels


def damaged(pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Spoil pictures (B, C, H, W) in [0, 1], each in another of ``KINDS`` ways, and return in which (B,).

    To tell how a picture was spoiled (as Ma et al. 2018, https://doi.org/10.1109/TIP.2017.2774045) is to see sharpness,
    grain and steps, and to make little of where exactly a blade of grass stands.
    """
    spoiled = []
    for kind in range(KINDS):
        some = pictures[kind::KINDS]  # (B / KINDS, C, H, W)
        sharpness, strength = kind % (KINDS // len(NOISES)), NOISES[kind // (KINDS // len(NOISES))]
        if sharpness >= len(BLURS):
            side = BLOCKS[sharpness - len(BLURS)]
            some = F.avg_pool2d(some, side).repeat_interleave(side, 2).repeat_interleave(side, 3)
        elif BLURS[sharpness]:
            some = gaussian_blur2d(some, (9, 9), (BLURS[sharpness],) * 2)
        spoiled.append((some + strength / 255 * torch.randn_like(some)).clamp(0, 1))
    counts = torch.tensor([len(some) for some in spoiled])
    return torch.cat(spoiled), torch.arange(KINDS).repeat_interleave(counts).to(pictures.device)


def weights_at_hand(weights: AlexNet_Weights | VGG19_Weights) -> Path | None:
    """Return the file of torchvision's weights if it was downloaded some day."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    return path if path.is_file() else None


def vgg_distance() -> PerceptualDistance | None:
    """Return the distance by VGG19, the net that SRGAN was taught with, if its weights are at hand."""
    weights = VGG19_Weights.IMAGENET1K_V1
    path = weights_at_hand(weights)
    if path is None:
        return None
    with torch.device("meta"):
        layers = vgg19().features
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    named = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    layers.load_state_dict(named, assign=True)
    expected = weights.transforms()
    return PerceptualDistance(layers, expected.mean, expected.std)


def lpips() -> LearnedPerceptualImagePatchSimilarity | None:
    """Return LPIPS, of pictures (B, 3, H, W) in [0, 1], if the weights of its AlexNet are at hand."""
    if weights_at_hand(AlexNet_Weights.IMAGENET1K_V1) is None:
        return None
    return LearnedPerceptualImagePatchSimilarity("alex", normalize=True)
