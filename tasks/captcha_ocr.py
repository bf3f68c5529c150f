"""Captcha OCR: the text in a picture, read without being told where its characters are."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.text import CharErrorRate

from engine.errors import UserError
from engine.pictures import grid, picture_of, show
from engine.plots import heatmap
from engine.schedules import WarmupCosine, progress, scheduled
from nets.ctc import beam_search, greedy

SHOWN = 8  # pictures in a row of samples
ONLY_BLANKS = 0.999  # share of time steps


class CaptchaOCRTask(LightningModule):
    """Connectionist temporal classification (CTC); exact match, character error rate and share of blanks.

    A text counts as read only if every character is right. All figures are of the likeliest character at every step;
    ``exact_match_beam`` is that of a search for the likeliest text.

    Args:
        net: Network from pictures (B, in_channels, H, W) to logits (B, time steps, number of characters + 1).
        in_channels: Channels of a picture.
        charset: The characters; the net's number 0 is the blank between them.
        optimizer: Optimizer of the network's parameters.
        scheduler: Learning rate schedule.
    """

    primary = "exact_match"
    perfect = 1.0

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        in_channels: int,
        charset: str,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = net(in_channels, 1 + len(charset))
        self.charset = charset
        self.optimizer, self.scheduler = optimizer, scheduler
        self.val_metrics = ocr_metrics()
        self.test_metrics = ocr_metrics()
        self.beam_match = MeanMetric()
        self.seen: list[tuple[Tensor, Tensor, str, str]] = []  # picture, probabilities, text, what was read: first ones
        self.misread: list[tuple[float, Tensor, str, str]] = []  # confidence, picture, text, what was read
        self.confused = np.zeros((len(charset), len(charset)), int)

    def forward(self, image: Tensor) -> Tensor:
        """Map pictures (B, in_channels, H, W) in [0, 1] to logits (B, time steps, number of characters + 1)."""
        std, mean = torch.std_mean(image, dim=(1, 2, 3), keepdim=True)  # of each: papers and inks differ
        return self.net((image - mean) / (std + 1e-3))

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        self.eval()  # batch norm must not learn from a blank page
        with torch.no_grad():
            steps = self(torch.zeros(1, data.in_channels, *data.size, device=self.device)).shape[1]
        self.train()
        if data.time_steps > steps:
            raise UserError(
                f"a text needs {data.time_steps} time steps, one a character and one between two that are the same; "
                f"the net has {steps} in a picture {data.size[1]} pixels wide: use a larger data.width"
            )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._loss(self(batch["image"]), batch)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self(batch["image"])
        self.log("val/loss", self._loss(logits, batch), batch_size=len(logits), sync_dist=True)
        self._measure(self.val_metrics, logits, batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self(batch["image"])
        for probabilities, target in zip(logits.float().softmax(2).cpu(), batch["target"].tolist(), strict=True):
            likeliest = beam_search(probabilities)[0][0]
            self.beam_match.update(float(list(likeliest) == [number for number in target if number]))
        self._measure(self.test_metrics, logits, batch)

    def on_test_epoch_end(self) -> None:
        self.log("test/exact_match_beam", self.beam_match.compute(), sync_dist=True)
        self._report("test", self.test_metrics)
        self.beam_match.reset()

    def _loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return minus the mean log probability of the texts, each divided by its length."""
        steps = torch.full_like(batch["length"], logits.shape[1])
        by_step = logits.float().log_softmax(2).transpose(0, 1)  # (time steps, B, numbers)
        return F.ctc_loss(by_step, batch["target"], steps, batch["length"], zero_infinity=True)

    def _measure(self, metrics: Any, logits: Tensor, batch: dict[str, Tensor]) -> None:
        """Take logits into account, and keep what the pictures will show: first samples, and those misread."""
        texts = [self.text_of(numbers) for numbers in batch["target"]]
        read = [self.text_of(numbers) for numbers in greedy(logits)]
        update(metrics, read, texts)
        metrics["blank_rate"].update((logits.argmax(2) == 0).float())
        probabilities = logits.float().softmax(2).cpu()
        confidences = probabilities.amax(2).prod(1).tolist()
        for i, (said, text) in enumerate(zip(read, texts, strict=True)):
            picture = batch["image"][i].cpu()
            if len(self.seen) < SHOWN:
                self.seen.append((picture, probabilities[i], text, said))
            if said != text:
                self.misread.append((confidences[i], picture, text, said))
            if len(said) == len(text):
                rows, columns = ([self.charset.index(character) for character in word] for word in (text, said))
                np.add.at(self.confused, (rows, columns), 1)
        self.misread = sorted(self.misread, key=lambda sample: -sample[0])[:SHOWN]

    def _report(self, stage: str, metrics: Any) -> None:
        """Log the metrics of a part and show samples: where each character was seen, and what was misread."""
        for name, metric in metrics.items():
            self.log(f"{stage}/{name}", metric.compute(), prog_bar=name == "exact_match", sync_dist=True)
            metric.reset()
        pictures = [picture_of(picture) for picture, *_ in self.seen]
        steps = [
            strip(probabilities, picture.size)
            for (_, probabilities, *_), picture in zip(self.seen, pictures, strict=True)
        ]
        rows = {"picture": pictures, "characters\nover steps": steps}
        show(self, f"{stage}_samples", grid(rows, [caption(text, said) for *_, text, said in self.seen]))
        if stage == "test":
            if self.misread:
                captions = [caption(text, said) for *_, text, said in self.misread]
                show(self, "misread", grid({"misread": [picture_of(p) for _, p, *_ in self.misread]}, captions))
            show(self, "confusion", heatmap(self.confused, self.charset, "characters, texts of the right length"))
        self.seen, self.misread = [], []
        self.confused[:] = 0

    def text_of(self, numbers: Tensor) -> str:
        """Return the text that numbers from 1 on stand for; 0 is no character."""
        return "".join(self.charset[number - 1] for number in numbers.tolist() if number)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a picture its ``path``, ``input``, the likeliest ``text``, its ``probability``, and ``others``."""
        (best, probability), *others = beam_search(self(batch["image"])[0].float().softmax(1).cpu())
        return [
            {
                "path": batch["path"][0],
                "input": picture_of(batch["image"][0].cpu()),
                "text": self.text_of(torch.tensor(best)),
                "probability": f"{probability:.4f}",
                "others": ", ".join(f"{self.text_of(torch.tensor(text))} {share:.4f}" for text, share in others[:3]),
            }
        ]

    def ailments(self, values: dict[str, float]) -> dict[str, str]:
        """Return what is wrong: that nothing is read, once half the training is over. Every training begins so."""
        if values["val/blank_rate"] < ONLY_BLANKS or progress(self.trainer, self.global_step) < 0.5:
            return {}
        return {
            "only_blanks": f"the net reads nothing: {values['val/blank_rate']:.1%} of its answers are blanks\n"
            "every training begins so: train longer (--trainer.max_epochs), with more pictures, or with another "
            "--model.optimizer.lr"
        }

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return two pictures."""
        return {"image": ("BCHW", torch.rand(2, self.hparams["in_channels"], *datamodule.restored["size"]))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the metrics of always answering with the most frequent text of the training part."""
        frequent = Counter(datamodule.of("train")).most_common(1)[0][0]
        metrics: Any = ocr_metrics()
        texts = datamodule.of("test")
        update(metrics, [frequent] * len(texts), texts)
        return {f"test/{name}": float(metrics[name].compute()) for name in ("exact_match", "cer")}

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return nothing: no method that needs no training reads captchas."""
        return {}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


def ocr_metrics() -> nn.ModuleDict:
    """Return what is measured: texts read without a mistake, edits a character, and the share of blank time steps."""
    return nn.ModuleDict({"exact_match": MeanMetric(), "cer": CharErrorRate(), "blank_rate": MeanMetric()})


def update(metrics: Any, read: list[str], texts: list[str]) -> None:
    """Take into account what was read of texts."""
    metrics["exact_match"].update(torch.tensor([said == text for said, text in zip(read, texts, strict=True)]).float())
    metrics["cer"].update(read, texts)


def caption(text: str, said: str) -> str:
    """Return a line on what was read."""
    return said if said == text else f"{said or 'nothing'}, is {text}"


def strip(probabilities: Tensor, size: tuple[int, int]) -> Image.Image:
    """Draw probabilities (time steps, numbers), blanks at the top, as large as the picture they were read from."""
    pixels = (255 * (1 - probabilities.T.numpy())).round().astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
