"""Translation: a sentence in one language, written in another."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL import Image
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric

from engine.pictures import show
from engine.schedules import WarmupCosine, scheduled
from engine.text_pictures import alignment, stacked, text_table
from tasks.beam_search import beam_search

SHOWN = 12  # sentences in a table
DRAWN = 3  # sentences whose attention is drawn
BLOCK = 64  # sentences that are compared with all of the training part at once: memory is limited
LONGEST = (2, 20)  # a translation has at most so many tokens for each of the sentence, and so many more

Translation = tuple[str, str, str]  # sentence, its true translation, ours


class TranslationTask(LightningModule):
    """Cross entropy of the next token of the translation; chrF, BLEU and the share of translations that are exact.

    chrF (https://aclanthology.org/W15-3049) and BLEU are sacreBLEU's (https://arxiv.org/abs/1804.08771), 0 to 100, of
    texts as they were written. In val the likeliest token is taken at every step; in test a beam search looks for the
    likeliest text, and figures that end in ``_greedy`` are those without it.

    Args:
        net: Network from source (B, S) and target tokens (B, T) to logits (B, T, target_vocab_size).
        source_tokenizer: Tokenizer of the sentences as JSON.
        target_tokenizer: Tokenizer of the translations as JSON.
        optimizer: Optimizer of the network's parameters.
        label_smoothing: Share of the probability that is wanted for all other tokens.
        beam: Beginnings of a translation that are gone on with in test and prediction.
        length_penalty: How much longer translations are preferred; 0 not at all.
        scheduler: Learning rate schedule.
    """

    primary = "chrf"
    perfect = 100.0
    net: Any

    def __init__(
        self,
        net: Callable[[int, int], nn.Module],
        source_tokenizer: str,
        target_tokenizer: str,
        optimizer: OptimizerCallable,
        label_smoothing: float = 0.1,
        beam: int = 4,
        length_penalty: float = 0.6,
        scheduler: LRSchedulerCallable = WarmupCosine,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.source_tokenizer, self.tokenizer = map(Tokenizer.from_str, (source_tokenizer, target_tokenizer))
        vocabulary = self.tokenizer.get_vocab()
        self.begin, self.end = vocabulary["[BOS]"], vocabulary["[EOS]"]
        self.net = net(self.source_tokenizer.get_vocab_size(), self.tokenizer.get_vocab_size())
        self.label_smoothing, self.beam, self.length_penalty = label_smoothing, beam, length_penalty
        self.optimizer, self.scheduler = optimizer, scheduler
        self.val_loss = MeanMetric()
        self.val_texts, self.test_texts, self.greedy_texts = Translations(), Translations(), Translations()
        self.drawn: list[Image.Image] = []  # attention of some test sentences

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Map source (B, S) and target tokens (B, T) to logits of the target's next (B, T, target_vocab_size)."""
        return self.net(source, target)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self._loss(batch, self.label_smoothing)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.val_loss.update(self._loss(batch, 0.0), (batch["target"][:, 1:] != 0).sum())
        self.val_texts.update(batch["text"], batch["translation"], self.translate(batch["source"], beam=1))

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.val_loss.compute(), sync_dist=True)
        self.val_loss.reset()
        self._report("val", self.val_texts)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        source = batch["source"]
        every = max(1, int(self.trainer.num_test_batches[0]) // DRAWN)
        if batch_idx % every == every - 1 and len(self.drawn) < DRAWN:  # from short ones to long ones
            length = int((source[:1] != 0).sum())
            self.drawn.append(self.draw_attention(source[:1, :length], self.search(source[:1, :length], self.beam)[0]))
        for texts, beam in ((self.test_texts, self.beam), (self.greedy_texts, 1)):
            texts.update(batch["text"], batch["translation"], self.translate(source, beam))

    def on_test_epoch_end(self) -> None:
        for name, value in scores(self.greedy_texts.compute()).items():
            self.log(f"test/{name}_greedy", value, sync_dist=True)
        self.greedy_texts.reset()
        translations = self._report("test", self.test_texts)
        worst = sorted(translations, key=lambda texts: CHRF().sentence_score(texts[2], [texts[1]]).score)
        show(self, "worst", table(worst[:SHOWN]))
        show(self, "attention", stacked(self.drawn))
        self.drawn = []

    def _loss(self, batch: dict[str, Any], label_smoothing: float) -> Tensor:
        """Return the mean cross entropy of the next tokens, without the padding."""
        target = batch["target"]
        logits = self(batch["source"], target[:, :-1])
        return F.cross_entropy(
            logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0, label_smoothing=label_smoothing
        )

    def _report(self, stage: str, texts: "Translations") -> list[Translation]:
        """Log the scores of a part, show samples and return all translations."""
        translations = texts.compute()
        texts.reset()
        for name, value in scores(translations).items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "chrf", sync_dist=True)
        show(self, f"{stage}_samples", table(translations[:: max(1, len(translations) // SHOWN)][:SHOWN]))
        return translations

    @torch.no_grad()
    def search(self, source: Tensor, beam: int) -> list[list[int]]:
        """Return tokens of translations of source tokens (B, S)."""
        longest = LONGEST[0] * source.shape[1] + LONGEST[1]
        return beam_search(self.net, source, self.begin, self.end, beam, self.length_penalty, longest)

    def translate(self, source: Tensor, beam: int) -> list[str]:
        """Return translations of source tokens (B, S)."""
        return self.decode(self.search(source, beam))

    def decode(self, texts: list[list[int]]) -> list[str]:
        """Return the texts that tokens stand for."""
        return [text.strip() for text in self.tokenizer.decode_batch(texts, skip_special_tokens=False)]

    @torch.no_grad()
    def draw_attention(self, source: Tensor, found: list[int]) -> Image.Image:
        """Draw from which of the source tokens (1, S) the tokens of a translation were read."""
        target = torch.tensor([[self.begin, *found]], device=self.device)
        shares = self.net.weights(source, target)[0].float().cpu().numpy()
        columns = [self.source_tokenizer.decode([token]) for token in source[0].tolist()[:-1]]
        rows = [self.tokenizer.decode([token]) for token in found]
        return alignment(shares[: len(rows), : len(columns)], rows, columns)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return for a sentence its ``path``, ``sentence``, ``translation`` and ``attention``, drawn."""
        (found,) = self.search(batch["source"], self.beam)
        return [
            {
                "path": batch["path"][0],
                "sentence": batch["text"][0],
                "translation": self.decode([found])[0],
                "attention": self.draw_attention(batch["source"], found),
            }
        ]

    def example(self, datamodule: Any) -> dict[str, tuple[str, Tensor]]:
        """Return the tokens of two sentences, and of the beginnings of their translations."""
        source, target = self.source_tokenizer.get_vocab_size(), self.tokenizer.get_vocab_size()
        return {
            "source": ("BS", torch.randint(1, source, (2, 12))),
            "target": ("BT", torch.randint(1, target, (2, 13))),
        }

    def baseline(self, datamodule: Any) -> dict[str, float]:
        """Return the scores of answering with the translation of the most similar training sentence."""
        train, test = datamodule.pairs["train"], datamodule.pairs["test"]
        parts_of_words = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True)
        known = parts_of_words.fit_transform([sentence for sentence, _ in train])
        asked = parts_of_words.transform([sentence for sentence, _ in test])
        found: list[int] = []
        for row in range(0, len(test), BLOCK):
            found += (asked[row : row + BLOCK] @ known.T).argmax(axis=1).A1.tolist()
        return keyed([(sentence, truth, train[row][1]) for (sentence, truth), row in zip(test, found, strict=True)])

    def references(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Return the scores of leaving sentences as they are."""
        return {"copy": keyed([(sentence, truth, sentence) for sentence, truth in datamodule.pairs["test"]])}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        return scheduled(self.trainer, optimizer, self.scheduler(optimizer))


class Translations(Metric):
    """Sentences, their true translations, and ours, of all devices; kept as bytes, which devices can exchange."""

    texts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("texts", [], dist_reduce_fx="cat")

    def update(self, sentences: list[str], truths: list[str], ours: list[str]) -> None:
        """Add sentences."""
        for texts in zip(sentences, truths, ours, strict=True):
            line = "\t".join(" ".join(text.split()) for text in texts) + "\n"
            self.texts.append(torch.tensor(list(line.encode()), dtype=torch.uint8, device=self.device))

    def compute(self) -> list[Translation]:
        """Return all of them."""
        texts = torch.cat(self.texts) if isinstance(self.texts, list) else self.texts
        lines = bytes(texts.cpu().tolist()).decode().splitlines()
        return [(sentence, truth, ours) for sentence, truth, ours in (line.split("\t") for line in lines)]


def scores(translations: list[Translation]) -> dict[str, float]:
    """Return chrF, BLEU and the share of exact translations."""
    truths, ours = ([texts[place] for texts in translations] for place in (1, 2))
    return {
        "chrf": CHRF().corpus_score(ours, [truths]).score,
        "bleu": BLEU().corpus_score(ours, [truths]).score,
        "exact_match": sum(map(str.__eq__, ours, truths)) / len(truths),
    }


def keyed(translations: list[Translation]) -> dict[str, float]:
    """Return scores under their keys of the test part."""
    return {f"test/{name}": value for name, value in scores(translations).items()}


def table(translations: list[Translation]) -> Image.Image:
    """Draw sentences, their true translations, and ours."""
    rows = [["sentence", "truth", "translation"], *map(list, translations)]
    return text_table(rows, (380, 380, 380), most_lines=4)
