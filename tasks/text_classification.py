"""Text classification: one class for a text."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection

from engine.pictures import show
from engine.schedules import WarmupCosine, parameter_groups, scheduled
from engine.text_pictures import text_table
from tasks.class_metrics import classification_metrics, filled_table, report, start_from

SHOWN = 8  # texts in a table
CHUNK = 256  # rows of a table that are predicted at once


class TextClassificationTask(LightningModule):
    """Cross entropy; accuracy (top-1, top-5, of every class), confusion and calibration on all samples of a part.

    Args:
        net: Network from tokens (B, T), the last of which fills short texts up, to class logits (B, num_classes); its
            last layer is called ``head``.
        tokenizer: Tokenizer as JSON.
        num_classes: Number of classes.
        class_names: Names of the classes.
        optimizer: Optimizer of the network's parameters; weight decay spares all but matrices.
        label_smoothing: Share of the truth that is spread over all classes, in [0, 1).
        init_from: Checkpoint or run folder to start from, such as one of masked language modelling, whose tokens the
            data must use (``--data.tokenizer_from``); layers of another shape start anew.
        scheduler: Learning rate schedule.
    """

    primary = "accuracy"
    perfect = 1.0
    net: Any

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        tokenizer: str,
        num_classes: int,
        class_names: list[str],
        optimizer: OptimizerCallable,
        label_smoothing: float = 0.0,
        init_from: str | None = None,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tokenizer = tokenizer
        self.net = net(Tokenizer.from_str(tokenizer).get_vocab_size() + 1, num_classes)
        self.class_names, self.label_smoothing, self.init_from = class_names, label_smoothing, init_from
        self.optimizer, self.scheduler = optimizer, scheduler
        self.val_metrics = classification_metrics(num_classes)
        self.test_metrics = classification_metrics(num_classes)
        self.seen: list[tuple[float, str, Tensor, int]] = []  # loss, text, probabilities, truth: to be shown

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T), filled up at the ends, to class logits (B, num_classes)."""
        return self.net(tokens)

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.init_from and not self.trainer.ckpt_path:  # a checkpoint brings all of it
            self.print(start_from(self.net, self.init_from, self.class_names, self.tokenizer))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch["tokens"]), batch["label"], label_smoothing=self.label_smoothing)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        logits = self(batch["tokens"])
        self.log("val/loss", F.cross_entropy(logits, batch["label"]), batch_size=len(logits), sync_dist=True)
        self._measure(self.val_metrics, logits, batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._measure(self.test_metrics, self(batch["tokens"]), batch)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def _measure(self, metrics: MetricCollection, logits: Tensor, batch: dict[str, Any]) -> None:
        """Take logits (B, num_classes) into account, and keep what the pictures will show: first and worst samples."""
        probabilities = logits.float().softmax(1)
        metrics.update(probabilities, batch["label"])
        losses = F.cross_entropy(logits.float(), batch["label"], reduction="none").tolist()
        self.seen += list(zip(losses, batch["text"], probabilities.cpu(), batch["label"].tolist(), strict=True))
        self.seen = self.seen[:SHOWN] + sorted(self.seen[SHOWN:], key=lambda sample: -sample[0])[:SHOWN]

    def _report(self, stage: str, metrics: MetricCollection) -> None:
        """Log the metrics of a part; show samples, and the worst of them."""
        report(self, stage, metrics)
        show(self, f"{stage}_samples", self._draw(self.seen[:SHOWN]))
        show(self, f"{stage}_most_confused", self._draw(sorted(self.seen, key=lambda s: -s[0])[:SHOWN]))
        self.seen = []

    def _draw(self, samples: list[tuple[float, str, Tensor, int]]) -> Any:
        """Draw texts beside what is said of them and what they are."""
        rows = [["text", "said", "is"]]
        for _, text, probabilities, label in samples:
            said = int(probabilities.argmax())
            rows.append([text, f"{self.class_names[said]} {probabilities[said]:.2f}", self.class_names[label]])
        return text_table(rows, (700, 180, 140), most_lines=5)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a text its ``path``, ``text``, ``class``, ``probability`` and the next likely ``others``.

        For a table return its ``path`` and ``predictions``, its rows with the class and the probability of each.
        """
        path, rows = batch["path"][0], batch["tokens"][0].split(CHUNK)
        probabilities = torch.cat([self(tokens).float().softmax(1).cpu() for tokens in rows])
        if "table" in batch:
            return [{"path": path, "predictions": filled_table(batch["table"][0], probabilities, self.class_names)}]
        best, *others = probabilities[0].argsort(descending=True)[:4].tolist()
        shares = {c: f"{probabilities[0, c]:.4f}" for c in (best, *others)}
        others_named = ", ".join(f"{self.class_names[c]} {shares[c]}" for c in others)
        record = {"path": path, "text": batch["text"][0], "class": self.class_names[best]}
        return [{**record, "probability": shares[best], "others": others_named}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return the tokens of two texts."""
        return {"tokens": ("BT", torch.randint(Tokenizer.from_str(self.tokenizer).get_vocab_size(), (2, 16)))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the metrics of always naming the most frequent class of the training part, then the next ones."""
        labels = datamodule.datasets["train"].labels
        counts = torch.bincount(labels, minlength=len(self.class_names)).float()
        return self._evaluate(datamodule, lambda texts: counts.expand(len(texts), -1))

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the metrics of logistic regression on the words, and pairs of words, that are in a text."""
        data = datamodule.datasets["train"]
        method = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1000))
        method.fit(data.texts, data.labels.numpy())
        known = torch.from_numpy(method.classes_)

        def score(texts: list[str]) -> Tensor:
            scores = torch.zeros(len(texts), len(self.class_names))
            scores[:, known] = torch.from_numpy(method.predict_proba(texts)).float()
            return scores

        return {"logistic regression on words": self._evaluate(datamodule, score)}

    def _evaluate(self, datamodule: Any, score: Callable[[list[str]], Tensor]) -> dict[str, float]:
        """Measure a method that maps texts to scores (B, num_classes) on the test part."""
        metrics = classification_metrics(len(self.class_names))
        for batch in datamodule.test_dataloader():
            metrics.update(score(batch["text"]).softmax(1), batch["label"])
        values = metrics.compute()
        names = ("accuracy", "top5_accuracy")
        return {f"test/{name}": float(values[name]) for name in names if name in values}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(parameter_groups(self))
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))
