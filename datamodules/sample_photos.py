"""The ten photographs that come with scikit-image and scikit-learn."""

import torch
from skimage import data as skimage_data
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn import functional as F

# No photograph is ever on two sides of the split.
PHOTOS = {
    "train": ["astronaut", "chelsea", "hubble_deep_field", "immunohistochemistry", "rocket", "stereo_motorcycle"],
    "val": ["coffee", "flower"],
    "test": ["china", "retina"],
}


def load_photo(name: str) -> Tensor:
    """Return a photograph of scikit-image or scikit-learn as (3, H, W) in [0, 1]."""
    photo = load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(skimage_data, name)()
    left = photo[0] if isinstance(photo, tuple) else photo  # the stereo picture comes as a tuple
    return torch.from_numpy(left.copy()).permute(2, 0, 1) / 255


def patch(photos: list[Tensor], size: int, generator: torch.Generator) -> Tensor:
    """Return a square of a random photo, one to three times ``size`` wide there, as (3, size, size)."""
    photo = photos[int(torch.randint(len(photos), (), generator=generator))]
    height, width = photo.shape[1:]
    side = min(height, width, int(size * (1 + 2 * torch.rand((), generator=generator))))
    top = int(torch.randint(height - side + 1, (), generator=generator))
    left = int(torch.randint(width - side + 1, (), generator=generator))
    return F.interpolate(photo[None, :, top : top + side, left : left + side], (size, size), mode="area")[0]
