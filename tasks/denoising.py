"""Denoising: pictures without the Gaussian noise that lies on them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL import Image
from scipy.ndimage import median_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.image import PeakSignalNoiseRatio

from engine.errors import UserError
from engine.pictures import grid, middle, picture_of, picture_of_bytes, show, with_alpha
from engine.schedules import WarmupCosine, scheduled
from engine.similarity import SSIM
from engine.tiles import in_tiles

SHOWN, ZOOM = 6, 96  # pictures in a row of samples, and side in pixels of the window of each that is shown
MOST_READ = 5000  # pictures that the classifier is taught with
SMALL = 64  # pictures with a side below it are drawings of a few pixels, such as digits

Method = Callable[[np.ndarray, float], np.ndarray]  # of a picture (H, W, 3) or (H, W) and the deviation of its noise


class DenoisingTask(LightningModule):
    """Mean absolute error of what a net makes of noisy pictures; PSNR and SSIM at named strengths of noise.

    Noise is drawn anew for every training picture and is not clipped; that of val and test pictures follows from the
    picture, so that everybody is measured on the same. Both figures are means over pictures, with a range of 1.

    Args:
        net: Network from noisy pictures (B, in_channels, H, W) to clean ones of the same shape.
        in_channels: Channels of a picture.
        optimizer: Optimizer of the network's parameters.
        sigma: Smallest and largest standard deviation of training noise, in 255ths.
        test_sigmas: Standard deviations at which val and test are measured, in 255ths.
        scheduler: Learning rate schedule.
    """

    primary = "psnr"
    perfect = math.inf

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        in_channels: int,
        optimizer: OptimizerCallable,
        sigma: tuple[float, float] = (0.0, 55.0),
        test_sigmas: Sequence[int] = (15, 25, 50),
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not 0 <= sigma[0] <= sigma[1] or not sigma[1]:
            raise UserError(f"model.sigma {list(sigma)} is no range of standard deviations such as [0, 55]")
        self.net = net(in_channels, in_channels)
        self.sigma, self.test_sigmas = sigma, test_sigmas
        self.optimizer, self.scheduler = optimizer, scheduler
        self.val_metrics = nn.ModuleDict({str(s): restoration_metrics() for s in test_sigmas})
        self.test_metrics = nn.ModuleDict({str(s): restoration_metrics() for s in test_sigmas})
        self.classifier: SVC | None = None  # of pictures that have a class
        self.accuracies = nn.ModuleDict({name: MeanMetric() for name in ("clean", "noisy", "denoised")})
        self.seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}  # noisy, denoised, clean of every strength

    def forward(self, noisy: Tensor) -> Tensor:
        """Map noisy pictures (B, in_channels, H, W), in [0, 1] but for the noise, to clean ones of the same shape."""
        return self.net(noisy)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        clean = batch["image"]
        low, high = self.sigma
        sigma = low + (high - low) * torch.rand(len(clean), 1, 1, 1, device=clean.device)
        return F.l1_loss(self(clean + sigma / 255 * torch.randn_like(clean)).float(), clean)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(data, "class_names"):
            dataset = data.in_order("train").dataset
            rows = list(range(0, len(dataset), 1 + len(dataset) // MOST_READ))
            batch = data.on_after_batch_transfer(dataset.__getitems__(rows), 0)
            self.classifier = SVC(C=10).fit(batch["image"].flatten(1).numpy(), batch["label"].numpy())

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._measure(self.test_metrics, batch)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def _measure(self, metrics: Any, batch: dict[str, Tensor]) -> None:
        """Measure a batch at every strength of noise, and keep what the pictures will show."""
        clean = batch["image"]
        for sigma, at_sigma in metrics.items():
            noisy = clean + int(sigma) / 255 * noise_of(clean)
            denoised = self(noisy).float().clamp(0, 1)
            at_sigma.update(denoised, clean)
            seen = self.seen.setdefault(sigma, [])
            shown = (middle(pictures[: SHOWN - len(seen)], ZOOM).cpu() for pictures in (noisy, denoised, clean))
            seen += zip(*shown, strict=True)
            if self.classifier and not self.trainer.validating:
                accuracies: Any = self.accuracies.values()
                for pictures, accuracy in zip((clean, noisy, denoised), accuracies, strict=True):
                    said = self.classifier.predict(pictures.flatten(1).cpu().numpy())
                    accuracy.update(torch.from_numpy(said == batch["label"].cpu().numpy()).float())

    def _report(self, stage: str, metrics: Any) -> None:
        """Log PSNR and SSIM, their means and those of every strength, and show samples of every strength."""
        values = {sigma: at_sigma.compute() for sigma, at_sigma in metrics.items()}
        for name in ("psnr", "ssim"):
            mean = torch.stack([value[name] for value in values.values()]).mean()
            self.log(f"{stage}/{name}", mean, prog_bar=name == "psnr", sync_dist=True)
            if len(values) > 1:
                each = {f"{stage}/{name}_{sigma}": value[name] for sigma, value in values.items()}
                self.log_dict(each, sync_dist=True)
        if self.classifier and stage == "test":
            accuracies: Any = self.accuracies.items()
            for name, accuracy in accuracies:
                self.log(f"test/accuracy_{name}", accuracy.compute(), sync_dist=True)
                accuracy.reset()
        show(self, f"{stage}_samples", self._draw())
        for at_sigma in metrics.values():
            at_sigma.reset()
        self.seen = {}

    def _draw(self) -> Image.Image:
        columns, captions = [], []
        for sigma, seen in self.seen.items():
            for noisy, denoised, clean in seen[: max(2, SHOWN // len(self.seen))]:
                columns.append([picture_of(picture) for picture in (noisy, denoised, clean)])
                captions.append(f"sigma {sigma}: {peak_signal_noise_ratio(denoised, clean, data_range=1.0):.1f} dB")
        rows = zip(*columns, strict=True)
        return grid(dict(zip(("noisy", "denoised", "clean"), rows, strict=True)), captions)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a picture its ``path``, ``input``, and ``denoised``, a picture of the same size."""
        image, alpha = batch["image"], batch.get("alpha")
        denoised = with_alpha(picture_of_bytes(in_tiles(self, image)), alpha)
        return [{"path": batch["path"][0], "input": picture_of(image[0].cpu()), "denoised": denoised}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two pictures."""
        return {"noisy": ("BCHW", torch.rand(2, self.hparams["in_channels"], 32, 32))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the metrics of leaving the noise where it is."""
        return self._evaluate(datamodule, lambda noisy, sigma: noisy)

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the metrics of what needs no training, and is told the strength of the noise."""
        small = min(next(iter(datamodule.test_dataloader()))["image"].shape[2:]) < SMALL
        methods = SMALL_METHODS if small else PHOTO_METHODS
        return {name: self._evaluate(datamodule, method) for name, method in methods.items()}

    def _evaluate(self, datamodule: Any, method: Method) -> dict[str, float]:
        """Measure a method, picture by picture, on the test part."""
        metrics = {sigma: restoration_metrics() for sigma in self.test_sigmas}
        for batch in datamodule.test_dataloader():
            clean = datamodule.on_after_batch_transfer(batch, 0)["image"]
            for sigma, at_sigma in metrics.items():
                noisy = (clean + sigma / 255 * noise_of(clean)).movedim(1, -1).numpy()
                restored = np.stack([apply(method, picture, sigma / 255) for picture in noisy])
                at_sigma.update(torch.from_numpy(restored).float().movedim(-1, 1), clean)
        values = {sigma: at_sigma.compute() for sigma, at_sigma in metrics.items()}
        means = {f"test/{n}": float(np.mean([float(v[n]) for v in values.values()])) for n in ("psnr", "ssim")}
        each = {f"test/psnr_{sigma}": float(value["psnr"]) for sigma, value in values.items()}
        return means | each if len(values) > 1 else means

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


def restoration_metrics() -> MetricCollection:
    """Return PSNR and SSIM (Wang et al. 2004: windows of 11 x 11, of a deviation of 1.5) as means over pictures."""
    return MetricCollection(
        {
            "psnr": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3)),
            "ssim": SSIM(),
        }
    )


def noise_of(pictures: Tensor) -> Tensor:
    """Return Gaussian noise of deviation 1 for pictures (B, C, H, W), the same for a picture in any batch."""
    sums = (pictures.double() * 255).round().sum((1, 2, 3)).long().tolist()
    drawn = [torch.randn(pictures.shape[1:], generator=torch.Generator().manual_seed(number)) for number in sums]
    return torch.stack(drawn).to(pictures.device)


def apply(method: Method, noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Return what a method makes of a picture (H, W, C); grey ones lose their axis of channels on the way."""
    return method(noisy.squeeze(2) if noisy.shape[2] == 1 else noisy, sigma).reshape(noisy.shape)


def channels_of(picture: np.ndarray) -> int | None:
    """Return the axis of channels, which a grey picture (H, W) does not have."""
    return -1 if picture.ndim == 3 else None


def non_local_means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise by the mean of similar patches (Buades et al. 2005), with the settings of scikit-image's example."""
    return denoise_nl_means(noisy, 5, 6, 0.8 * sigma, fast_mode=True, sigma=sigma, channel_axis=channels_of(noisy))


def wavelet(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise by shrinking wavelet coefficients (BayesShrink, Chang et al. 2000)."""
    return denoise_wavelet(noisy, sigma, rescale_sigma=True, channel_axis=channels_of(noisy))


def total_variation(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Denoise by little total variation (Chambolle 2004)."""
    return denoise_tv_chambolle(noisy, weight=sigma, channel_axis=channels_of(noisy))


PHOTO_METHODS: dict[str, Method] = {"non-local means": non_local_means, "wavelet": wavelet}
SMALL_METHODS: dict[str, Method] = {
    "median": lambda noisy, sigma: median_filter(noisy, (3, 3, 1)[: noisy.ndim]),
    "total variation": total_variation,
}
