"""Masked language modelling: words that are missing, told from what is on both sides."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from engine.pictures import show
from engine.plots import bars
from engine.schedules import WarmupCosine, parameter_groups, scheduled
from engine.text_pictures import text_table

MASKED = 0.15  # share of the tokens that val and test ask for
LEARNED = 0.4  # the same of training: there is more to learn from every text (https://arxiv.org/abs/2202.08005)
HIDDEN, CHANGED = 0.8, 0.1  # shares of them, in training, that are hidden, and that are another token; the rest is left
SHOWN = 12  # tokens in the table of samples
AROUND = 12  # tokens on both sides of one in it
FILL = "[MASK]"  # what stands for a missing token in the user's texts

Method = Callable[[Tensor, Tensor, Tensor], Tensor]  # from tokens (B, T), what is seen of them, and where to guess


class MaskedLanguageModelingTask(LightningModule):
    """Cross entropy of missing tokens; the share of them that is guessed right, and their perplexity.

    In training, of 40 % of the tokens most are hidden, some are another token, and some are left, as in the paper of
    ``nets.bert.BERT``. In val and test, 15 % are hidden; which ones follows from the text, so that everybody is
    measured on the same.

    Args:
        net: Network from tokens (B, T), the last of which hides others, to logits (B, T, vocab_size + 1); or, given
            where it is asked, bool (B, T), to those of the K places (K, vocab_size + 1).
        tokenizer: Tokenizer as JSON.
        optimizer: Optimizer of the network's parameters; weight decay spares all but matrices.
        scheduler: Learning rate schedule.
    """

    primary = "masked_accuracy"
    perfect = 1.0
    net: Any

    def __init__(
        self,
        net: Callable[[int], nn.Module],
        tokenizer: str,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tokenizer = Tokenizer.from_str(tokenizer)
        self.hidden = self.tokenizer.get_vocab_size()  # the token that hides others
        self.net = net(self.hidden + 1)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.val_metrics = guess_metrics()
        self.test_metrics = guess_metrics()
        self.seen: list[list[str]] = []  # text, truth, guesses: to be shown
        self.right: Counter[int] = Counter()  # hidden tokens of the test part by what they are, and those guessed right
        self.asked: Counter[int] = Counter()

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T), of which some are hidden, to logits of the true ones (B, T, vocab_size + 1)."""
        return self.net(tokens)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        tokens = batch["tokens"][:, 1:]
        draw, how = torch.rand(2, *tokens.shape, device=tokens.device)
        others = torch.randint(self.hidden, tokens.shape, device=tokens.device)
        seen = torch.where(how < HIDDEN, self.hidden, torch.where(how < HIDDEN + CHANGED, others, tokens))
        asked = draw < LEARNED
        logits = self.net(torch.where(asked, seen, tokens), asked)
        return F.cross_entropy(logits, tokens[asked], reduction="sum") / asked.sum().clamp(min=1)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._measure(self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._measure(self.test_metrics, batch)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)
        frequent = [token for token, _ in self.asked.most_common(25)]
        shares = {repr(self.tokenizer.decode([token])): self.right[token] / self.asked[token] for token in frequent}
        show(self, "accuracy_of_tokens", bars(shares, "guessed right, of the most frequent tokens"))
        self.right, self.asked = Counter(), Counter()

    def _measure(self, metrics: Any, batch: dict[str, Any]) -> None:
        """Hide tokens, guess them, and keep what the pictures will show."""
        tokens, asked = question(batch)
        logits = self.net(tokens.masked_fill(asked, self.hidden), asked).float()
        truth, guess = tokens[asked], logits[:, : self.hidden].argmax(1)
        metrics["masked_accuracy"].update((guess == truth).double())
        metrics["nats"].update(F.cross_entropy(logits, truth, reduction="none").double())
        if not self.trainer.validating:
            self.asked.update(truth.tolist())
            self.right.update(truth[guess == truth].tolist())
        if len(self.seen) < SHOWN:
            self._keep(tokens, asked, logits)

    def _keep(self, tokens: Tensor, asked: Tensor, logits: Tensor) -> None:
        """Keep some of the K places of tokens (B, T) that were asked for, and what logits (K, vocab_size + 1) say."""
        places = asked.nonzero().tolist()
        for number in range(0, len(places), max(1, len(places) // SHOWN)):
            row, place = places[number]
            before, after = tokens[row, max(0, place - AROUND) : place], tokens[row, place + 1 : place + 1 + AROUND]
            shares, likely = logits[number, : self.hidden].softmax(0).topk(3)
            said = [f"{self.decode(token[None])} {share:.2f}" for token, share in zip(likely, shares, strict=True)]
            text = f"{self.decode(before)} ____ {self.decode(after)}"
            self.seen.append([text, self.decode(tokens[row, place][None]), ", ".join(said)])

    def _report(self, stage: str, metrics: Any) -> None:
        """Log the metrics of a part, and show samples."""
        accuracy, nats = (float(metrics[name].compute()) for name in ("masked_accuracy", "nats"))
        self.log(f"{stage}/masked_accuracy", accuracy, prog_bar=True, sync_dist=True)
        self.log(f"{stage}/masked_perplexity", math.exp(nats), sync_dist=True)
        heading = ["text (some of the words around are hidden from the net, too)", "truth", "guesses"]
        show(self, f"{stage}_samples", text_table([heading, *self.seen[:SHOWN]], (700, 110, 300), most_lines=4))
        for metric in metrics.values():
            metric.reset()
        self.seen = []

    def decode(self, tokens: Tensor) -> str:
        """Return the text that tokens (T,) stand for."""
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a text its ``path``, ``prompt``, ``text`` with the likeliest for each [MASK], and ``guesses``."""
        path, prompt = batch["path"][0], batch["text"][0]
        parts = [self.tokenizer.encode(part, add_special_tokens=False).ids for part in prompt.split(FILL)]
        ids = parts[0] + [number for part in parts[1:] for number in (self.hidden, *part)]
        if len(parts) < 2:
            return [{"path": path, "prompt": prompt, "guesses": f"nothing is missing: write {FILL} for a word"}]
        tokens = torch.tensor([ids], device=self.device)
        shares = self(tokens)[0, :, : self.hidden].float().softmax(1)
        guesses = []
        for place in (tokens[0] == self.hidden).nonzero()[:, 0].tolist():
            values, likely = shares[place].topk(4)
            words = [f"{self.decode(token[None])} {value:.3f}" for token, value in zip(likely, values, strict=True)]
            guesses.append(", ".join(words))
            ids[place] = int(likely[0])
        text = self.decode(torch.tensor(ids))
        return [{"path": path, "prompt": prompt, "text": text, "guesses": "; ".join(guesses)}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return the tokens of two texts."""
        return {"tokens": ("BT", torch.randint(self.hidden + 1, (2, 16)))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the metrics of always guessing the most frequent token of the training part."""
        frequent = int(torch.bincount(torch.from_numpy(datamodule.tokens["train"][0])).argmax())
        return self._evaluate(datamodule, lambda tokens, seen, asked: torch.full_like(tokens, frequent))

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the metrics of guessing what was most often between the same two tokens, or behind the one before."""
        text = datamodule.tokens["train"][0].tolist()
        between: dict[tuple[int, int], Counter[int]] = {}
        for before, token, after in zip(text, text[1:], text[2:], strict=False):
            for key in ((before, after), (before, -1), (-1, after), (-1, -1)):
                between.setdefault(key, Counter())[token] += 1
        likely = {key: counts.most_common(1)[0][0] for key, counts in between.items()}

        def guess(tokens: Tensor, seen: Tensor, asked: Tensor) -> Tensor:
            new = tokens.clone()
            for row, place in asked.nonzero().tolist():
                before = int(seen[row, place - 1]) if place else -1
                after = int(seen[row, place + 1]) if place + 1 < seen.shape[1] else -1
                keys = ((before, after), (before, -1), (-1, after), (-1, -1))
                new[row, place] = next(likely[key] for key in keys if key in likely)
            return new

        return {"between the same neighbours": self._evaluate(datamodule, guess)}

    def _evaluate(self, datamodule: Any, method: Method) -> dict[str, float]:
        """Measure a method on the test part."""
        accuracy = MeanMetric()
        for batch in datamodule.test_dataloader():
            tokens, asked = question(batch)
            guess = method(tokens, tokens.masked_fill(asked, self.hidden), asked)
            accuracy.update((guess == tokens)[asked].float())
        return {"test/masked_accuracy": float(accuracy.compute())}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(parameter_groups(self))
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


def guess_metrics() -> nn.ModuleDict:
    """Return what is measured of hidden tokens: the share guessed right, and the mean of what they cost."""
    return nn.ModuleDict({name: MeanMetric().set_dtype(torch.float64) for name in ("masked_accuracy", "nats")})


def question(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return tokens (B, T) and which of them are asked for, the same for a window in any batch."""
    tokens = batch["tokens"][:, 1:]
    asked = torch.zeros_like(tokens, dtype=torch.bool)
    for row, number in enumerate(tokens.sum(1).tolist()):
        drawn = torch.rand(tokens.shape[1], generator=torch.Generator().manual_seed(number))
        asked[row] = (drawn < MASKED).to(tokens.device)
    return tokens, asked & batch["counts"]
