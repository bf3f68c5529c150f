"""Text generation: what comes next, token by token."""

import lzma
import math
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import SumMetric

from engine.pictures import show
from engine.schedules import WarmupCosine, parameter_groups, scheduled
from engine.text_pictures import text_heat, text_table
from tasks.kneser_ney import KneserNey

PROMPT, SAMPLE = 40, 400  # tokens of the text that samples go on from, and of the samples
PASSAGE = 1200  # tokens of the test part that are shown with what they cost
LONGEST = 9  # tokens that the longest counted sequences have


class TextGenerationTask(LightningModule):
    """Cross entropy of the next token; bits per character and perplexity on all of a part.

    The bits of all tokens, divided by the characters that they stand for, can be compared whatever the tokens are. The
    perplexity is that of tokens.

    Args:
        net: Network from tokens (B, T) and a state to logits (B, T, vocab_size) and the next state.
        tokenizer: Tokenizer as JSON.
        optimizer: Optimizer of the network's parameters; weight decay spares all but matrices.
        length: Tokens that a prediction goes on for.
        temperature: By what logits are divided when a token is drawn; 0 takes the likeliest.
        top_k: Draw from so many of the likeliest tokens; 0 for all.
        top_p: Draw from the likeliest tokens that have so much of the probability together
            (https://arxiv.org/abs/1904.09751).
        scheduler: Learning rate schedule.
    """

    primary = "bits_per_character"
    perfect = 0.0
    net: Any

    def __init__(
        self,
        net: Callable[[int], nn.Module],
        tokenizer: str,
        optimizer: OptimizerCallable,
        length: int = 400,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 0.95,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tokenizer = Tokenizer.from_str(tokenizer)
        self.net = net(self.tokenizer.get_vocab_size())
        self.length, self.temperature, self.top_k, self.top_p = length, temperature, top_k, top_p
        self.optimizer, self.scheduler = optimizer, scheduler
        self.state: Any = None  # of the net, behind the last training batch
        self.measured_state: Any = None  # the same of what is measured
        self.val_sums = sums()
        self.test_sums = sums()
        self.samples: list[list[str]] = []  # epoch, bits per character, and a text, of every validation
        self.passage: list[tuple[int, float]] = []  # token and bits, of the start of the test part

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T) to logits of the next ones (B, T, vocab_size)."""
        return self.net(tokens)[0]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        tokens = batch["tokens"]
        logits, self.state = self.net(tokens[:, :-1], None if batch["fresh"] else self.state)
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._measure(self.val_sums, batch)

    def on_validation_epoch_end(self) -> None:
        bits = self._report("val", self.val_sums)
        data: Any = getattr(self.trainer, "datamodule", None)
        prompt = torch.from_numpy(data.tokens["val"][0][None, :PROMPT]).to(self.device)
        text = self.decode(self.generate(prompt, SAMPLE, torch.Generator().manual_seed(0))[0])
        self.samples = [*self.samples[-11:], [str(self.current_epoch + 1), f"{bits:.3f}", text]]
        heading = ["epoch", "bits", "goes on from: " + " ".join(self.decode(prompt[0]).split())]
        show(self, "val_samples", text_table([heading, *self.samples], (60, 60, 900)))

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._measure(self.test_sums, batch)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_sums)
        pieces = [(self.decode(torch.tensor([token])), bits) for token, bits in self.passage]
        show(self, "test_surprise", text_heat(pieces, most=8.0))
        self.passage = []

    def _measure(self, metrics: Any, batch: dict[str, Any]) -> None:
        """Sum the bits of all tokens that count, and keep what a picture will show."""
        tokens, counts = batch["tokens"], batch["counts"]
        logits, self.measured_state = self.net(tokens[:, :-1], None if batch["fresh"] else self.measured_state)
        nats = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
        bits = nats.view_as(counts) / math.log(2)
        metrics["bits"].update((bits.double() * counts).sum())
        metrics["tokens"].update(counts.sum())
        metrics["characters"].update(batch["characters"])
        if len(self.passage) < PASSAGE and not self.trainer.validating:
            for row in range(len(tokens) if self.measured_state is None else 1):  # the others begin further on
                here = counts[row].cpu()
                shown = zip(tokens[row, 1:].cpu()[here].tolist(), bits[row].cpu()[here].tolist(), strict=True)
                self.passage += list(shown)[: PASSAGE - len(self.passage)]

    def _report(self, stage: str, metrics: Any) -> float:
        """Log the metrics of a part and return its bits per character."""
        bits, tokens, characters = (float(metrics[name].compute()) for name in ("bits", "tokens", "characters"))
        values = {"bits_per_character": bits / characters, "perplexity": 2 ** (bits / tokens)}
        self.log(f"{stage}/bits_per_character", values["bits_per_character"], prog_bar=True, sync_dist=True)
        self.log(f"{stage}/perplexity", values["perplexity"], sync_dist=True)
        for metric in metrics.values():
            metric.reset()
        return values["bits_per_character"]

    @torch.no_grad()
    def generate(self, tokens: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """Return the tokens that texts go on with.

        Args:
            tokens: Beginnings (B, T), at least one token each.
            length: How many tokens to add.
            generator: Source of all randomness.

        Returns:
            The new tokens (B, length).
        """
        state, new = None, []
        for _ in range(length):
            logits, state = self.net.go_on(tokens, state)
            tokens = drawn(logits.float().cpu(), self.temperature, self.top_k, self.top_p, generator).to(tokens.device)
            new.append(tokens)
        return torch.cat(new, dim=1)

    def decode(self, tokens: Tensor) -> str:
        """Return the text that tokens (T,) stand for."""
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a prompt its ``path``, and the ``text`` that begins with it."""
        tokens = (
            batch["tokens"] if batch["tokens"].shape[1] else torch.zeros(1, 1, dtype=torch.long, device=self.device)
        )
        generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
        text = batch["text"][0] + self.decode(self.generate(tokens, self.length, generator)[0])
        return [{"path": batch["path"][0], "text": text}]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return the tokens of two texts."""
        return {"tokens": ("BT", torch.randint(self.tokenizer.get_vocab_size(), (2, 16)))}

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the metrics of counting sequences of three tokens."""
        return self._count(datamodule, 3)

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the metrics of counting longer sequences, and of the compressor xz, given the training part."""
        train, test = (datamodule.texts[part].encode() for part in ("train", "test"))
        longer = len(lzma.compress(train + test, preset=9)) - len(lzma.compress(train, preset=9))
        return {
            "Kneser-Ney 5": self._count(datamodule, 5),
            f"Kneser-Ney {LONGEST}": self._count(datamodule, LONGEST),
            "xz": {"test/bits_per_character": 8 * longer / len(datamodule.texts["test"])},
        }

    def _count(self, datamodule: Any, order: int) -> dict[str, float]:
        """Measure a counting language model on the test part."""
        tokens, characters = datamodule.tokens["test"]
        model = KneserNey(datamodule.tokens["train"][0], self.tokenizer.get_vocab_size(), order)
        bits = model.bits(tokens)
        return {
            "test/bits_per_character": float(bits.sum() / characters[len(tokens) - len(bits) :].sum()),
            "test/perplexity": float(2 ** bits.mean()),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["text_state"] = {"state": self.state, "samples": self.samples}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.state, self.samples = checkpoint["text_state"]["state"], checkpoint["text_state"]["samples"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(parameter_groups(self))
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


def sums() -> nn.ModuleDict:
    """Return sums over a part, of all devices."""
    return nn.ModuleDict({name: SumMetric().set_dtype(torch.float64) for name in ("bits", "tokens", "characters")})


def drawn(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> Tensor:
    """Return a token (B, 1) for logits (B, vocab_size), drawn as ``TextGenerationTask`` says."""
    if not temperature:
        return logits.argmax(1, keepdim=True)
    values, tokens = (logits / temperature).sort(dim=1, descending=True)
    shares = values.softmax(1)
    left_out = shares.cumsum(1) - shares >= top_p  # the first that passes it is still in
    if top_k:
        left_out[:, top_k:] = True
    place = torch.multinomial(shares.masked_fill(left_out, 0), 1, generator=generator)
    return tokens.gather(1, place)
