"""The structural similarity of pictures, measured in full precision."""

import torch
from torch import Tensor
from torchmetrics.image import StructuralSimilarityIndexMeasure


class SSIM(StructuralSimilarityIndexMeasure):
    """Wang et al. 2004: windows of 11 x 11 of a deviation of 1.5, values in [0, 1]; the mean over pictures.

    It subtracts squares of means from means of squares, which in half precision leaves nothing: a training in
    ``bf16-mixed`` would read 0.61 where the truth is 0.81.
    """

    def __init__(self) -> None:
        super().__init__(data_range=1.0)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take pictures (B, C, H, W) into account."""
        with torch.autocast(preds.device.type, enabled=False):
            super().update(preds.float(), target.float())
