"""Translations: sentences in batches, searching, scoring, what attention shows, and what users bring."""

import gzip
import hashlib
from collections import Counter
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from recipes import multi30k, tatoeba, write
from sacrebleu import corpus_bleu, corpus_chrf
from test_engine import one_line
from tokenizers import Tokenizer
from torch.nn import functional as F

from datamodules.cldr import CLDRPhrasesDataModule
from datamodules.sentence_pairs import SPECIAL, BucketedBatches, SentencePairs
from datamodules.text_sets import fetch
from datamodules.tokenization import learn_tokenizer
from datamodules.translation import ParallelTextDataModule, read_aligned, read_tsv, split_off
from datamodules.translation_sets import Multi30kDataModule, TatoebaDataModule
from engine.errors import UserError
from engine.text_pictures import LINE, alignment, stacked
from nets.attention_gru import AttentionGRU
from nets.transformer import Transformer
from tasks.beam_search import beam_search
from tasks.translation import Translations, TranslationTask, scores

OWN = "datamodules.translation.ParallelTextDataModule"
NETS = {
    "transformer": partial(Transformer, dim=16, depth=2, num_heads=2),
    "attention_gru": partial(AttentionGRU, dim=8, width=12),
}
SENTENCES = [(f"{i} red cats", f"빨간 고양이 {i}마리") for i in range(40)] + [("the cat " * 9, "그 고양이 " * 9)]


def pairs_of(pairs: list[tuple[str, str]]) -> SentencePairs:
    tokenizers = [learn_tokenizer("\n".join(side), "characters", 0, SPECIAL) for side in zip(*pairs, strict=True)]
    return SentencePairs(pairs, *tokenizers)


def task_of(net: str, **settings) -> TranslationTask:
    torch.manual_seed(0)
    tokenizers = [
        learn_tokenizer("\n".join(side), "characters", 0, SPECIAL).to_str() for side in zip(*SENTENCES, strict=True)
    ]
    return TranslationTask(NETS[net], *tokenizers, partial(torch.optim.SGD, lr=0.1), **settings).eval()


@pytest.mark.parametrize("name", NETS)
def test_nets_read_all_of_the_source_and_nothing_ahead(name):
    torch.manual_seed(0)
    net = NETS[name](20, 15)
    source, target = torch.randint(1, 20, (3, 7)), torch.randint(1, 15, (3, 5))
    source[1, 4:] = 0
    logits = net(source, target)
    assert logits.shape == (3, 5, 15)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())
    net.eval()
    logits = net(source, target)
    torch.testing.assert_close(net(source[1:2, :4], target[1:2]), logits[1:2])  # padding is not read
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 15
    torch.testing.assert_close(net(source, changed)[:, :3], logits[:, :3])
    assert not torch.allclose(net(source, changed)[:, 3], logits[:, 3])
    for place in (0, 6):
        other = source.clone()
        other[0, place] = other[0, place] % 19 + 1
        assert not torch.allclose(net(other, target)[0], logits[0])


@pytest.mark.parametrize("name", NETS)
def test_writing_step_by_step_is_what_was_trained(name):
    torch.manual_seed(0)
    net = NETS[name](20, 15).eval()
    source, target = torch.randint(1, 20, (3, 7)), torch.randint(1, 15, (3, 5))
    source[2, 5:] = 0
    state, steps = net.start(source), []
    for place in range(5):
        logits, state = net.go_on(target[:, place : place + 1], state)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, dim=1), net(source, target))
    shares = net.weights(source, target)
    assert shares.shape == (3, 5, 7) and not shares[2, :, 5:].any()
    torch.testing.assert_close(shares.sum(2), torch.ones(3, 5))


class Chain:
    """A net whose next token depends on the last one and on the source."""

    def __init__(self, tables: torch.Tensor) -> None:
        self.tables = tables  # (kinds of sources, last token, next token)

    def start(self, source):
        return (source[:, 0], 0)

    def go_on(self, tokens, state):
        return self.tables[state[0], tokens[:, 0]], (state[0], state[1] + 1)


def test_beam_search_finds_what_the_likeliest_steps_miss():
    # 0 padding, 1 beginning, 2 end, 3 and 4 words: 3 is likelier at first, but what follows it is not
    shares = torch.full((1, 5, 5), 1e-6)
    shares[0, 1, 3], shares[0, 1, 4] = 0.6, 0.4
    shares[0, 3, 2], shares[0, 3, 3], shares[0, 3, 4] = 0.34, 0.33, 0.33
    shares[0, 4, 2] = 1.0
    net, source = Chain(shares.log()), torch.zeros(1, 1, dtype=torch.long)
    assert beam_search(net, source, 1, 2, beam=1, length_penalty=0.0, longest=4) == [[3]]
    assert beam_search(net, source, 1, 2, beam=2, length_penalty=0.0, longest=4) == [[4]]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_is_an_exhaustive_search_of_each_sentence(penalty):
    tables = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1)) * 2
    source = torch.tensor([[0], [1], [2]])
    found = beam_search(Chain(tables), source, 1, 2, beam=60, length_penalty=penalty, longest=4)
    for kind in range(3):
        steps = tables[kind].log_softmax(1)
        texts = [(*words, 2) for length in range(4) for words in product((3, 4), repeat=length)]
        texts += list(product((3, 4), repeat=4))  # cut off

        def worth(text, steps=steps):
            total = sum(float(steps[a, b]) for a, b in zip((1, *text), text, strict=False))
            return total / ((5 + len(text)) / 6) ** penalty

        best = max(texts, key=worth)
        assert found[kind] == [token for token in best if token != 2]


def test_a_longer_text_is_preferred_by_the_penalty():
    shares = torch.full((1, 5, 5), 1e-9)
    shares[0, 1, 2], shares[0, 1, 3] = 0.3, 0.7
    shares[0, 3, 2:] = torch.tensor([0.4, 0.3, 0.3])  # 0.3 for nothing, 0.28 for one word
    net, source = Chain(shares.log()), torch.zeros(1, 1, dtype=torch.long)
    assert beam_search(net, source, 1, 2, beam=3, length_penalty=0.0, longest=2) == [[]]
    assert beam_search(net, source, 1, 2, beam=3, length_penalty=2.0, longest=2) == [[3]]


@pytest.mark.parametrize("name", NETS)
def test_sentences_are_searched_alike_alone_and_in_a_batch(name):
    task = task_of(name)
    batch = pairs_of(SENTENCES).__getitems__([0, 40, 7])
    together = task.search(batch["source"], beam=3)
    for row, source in enumerate(batch["source"]):
        (alone,) = task.search(source[None, : int((source != 0).sum())], beam=3)
        assert together[row][: len(alone)] == alone


def test_batches_hold_every_sentence_once_and_change_with_the_epoch():
    pairs = pairs_of(SENTENCES)
    batches = BucketedBatches(pairs, batch_tokens=120)
    seen = []
    for epoch in (0, 1, 0):
        texts = [batches.__getitems__([epoch * len(batches) + i])["text"] for i in range(len(batches))]
        assert Counter(text for batch in texts for text in batch) == Counter(text for text, _ in SENTENCES)
        seen.append(texts)
    assert seen[0] == seen[2] and seen[0] != seen[1]
    for place in range(len(batches)):
        batch = batches.__getitems__([place])
        rows = len(batch["source"])
        assert rows == 1 or rows * max(batch["source"].shape[1], batch["target"].shape[1]) <= 120


def test_a_batch_says_where_sentences_begin_and_end():
    pairs = pairs_of([("ab", "나"), ("b", "가나다")])
    batch = pairs.__getitems__([0, 1])
    assert batch["source"].tolist() == [[5, 6, 3], [6, 3, 0]]  # behind the line break, characters in their order
    assert batch["target"].tolist() == [[2, 6, 3, 0, 0], [2, 5, 6, 7, 3]]


@pytest.mark.parametrize("name", NETS)
def test_the_loss_does_not_count_padding(name):
    task = task_of(name)
    batch = pairs_of(SENTENCES).__getitems__([0, 1])
    padded = batch | {"source": F.pad(batch["source"], (0, 3)), "target": F.pad(batch["target"], (0, 4))}
    torch.testing.assert_close(task._loss(batch, 0.1), task._loss(padded, 0.1))
    logits = task(batch["source"], batch["target"][:, :-1]).log_softmax(2)
    each = -logits.gather(2, batch["target"][:, 1:, None])
    torch.testing.assert_close(task._loss(batch, 0.0), each.mean())


def test_scores_are_those_of_sacrebleu():
    texts = [("a", "the cat sat on the mat", "the cat sat on a mat"), ("b", "I saw 2 dogs.", "I saw 2 dogs.")]
    ours, truths = [texts[0][2], texts[1][2]], [texts[0][1], texts[1][1]]
    found = scores(texts)
    assert found["bleu"] == pytest.approx(corpus_bleu(ours, [truths]).score)
    assert found["chrf"] == pytest.approx(corpus_chrf(ours, [truths]).score)
    assert found["exact_match"] == 0.5
    perfect = scores([("a", "그는 어제 집에 갔다.", "그는 어제 집에 갔다.")])
    assert perfect == pytest.approx({"bleu": 100, "chrf": 100, "exact_match": 1})


def test_translations_keep_texts_as_devices_exchange_them():
    texts = Translations()
    texts.update(["a\tb", "c"], ["가나 다", "ü"], ["", "line\u2028break"])
    assert texts.compute() == [("a b", "가나 다", ""), ("c", "ü", "line break")]
    texts.reset()
    texts.update(["x"], ["y"], ["z"])
    assert texts.compute() == [("x", "y", "z")]


def test_the_nearest_sentence_is_the_baseline_and_copying_a_reference():
    task = task_of("transformer")
    train = [("two red cats", "빨간 고양이 두 마리"), ("a blue house", "파란 집")]
    test = [("three red cats", "빨간 고양이 세 마리"), ("a blue house.", "파란 집")]
    data = SimpleNamespace(pairs={"train": train, "test": test})
    assert task.baseline(data)["test/exact_match"] == 0.5
    assert task.references(data)["copy"]["test/exact_match"] == 0.0


def test_attention_is_drawn_where_it_is():
    shares = np.zeros((2, 3))
    shares[0, 2] = shares[1, 0] = 1.0
    picture = np.asarray(alignment(shares, ["고양이", "가"], ["a", "b", "c"])).astype(int)
    side = LINE + 4
    assert picture.shape[1] >= 3 * side and picture.shape[0] >= 2 * side
    dark = picture.sum(2) < 200
    ys, xs = np.nonzero(dark[:, -3 * side - 10 : -10])
    cells = {(int(y - (picture.shape[0] - 10 - 2 * side)) // side, int(x) // side) for y, x in zip(ys, xs, strict=True)}
    assert {(0, 2), (1, 0)} <= cells and (0, 0) not in cells and (1, 1) not in cells
    both = stacked([alignment(shares, ["a", "b"], ["c", "d", "e"]), alignment(shares[:1], ["a"], ["c", "d", "e"])])
    assert both.height > alignment(shares, ["a", "b"], ["c", "d", "e"]).height


def test_phrases_are_korean_and_split_without_doubles():
    data = CLDRPhrasesDataModule()
    parts = {part: {sentence for sentence, _ in pairs} for part, pairs in data.pairs.items()}
    assert len(data.pairs["train"]) > 15_000 and min(map(len, parts.values())) > 800
    assert not parts["train"] & parts["test"] and not parts["train"] & parts["val"] and not parts["val"] & parts["test"]
    known = dict(data.pairs["train"] + data.pairs["val"] + data.pairs["test"])
    assert len(known) == sum(map(len, data.pairs.values()))
    assert not any("-" in korean and korean.isascii() and korean[-1].isalpha() for korean in known.values())
    years = [sentence for sentence in known if sentence.startswith("Sunday, November 2")]
    assert years and all(known[sentence].endswith("일요일") and "11월" in known[sentence] for sentence in years)


def test_near_doubles_are_on_one_side():
    train = [(f"I have {i} cats number {i % 50 * 'x'}", str(i)) for i in range(400)]
    parts = split_off({"train": train})
    sides = {part: {sentence.split()[-1] for sentence, _ in pairs} for part, pairs in parts.items()}
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["val"]
    assert sum(map(len, parts.values())) == 400 and len(parts["test"]) >= 40
    assert split_off({"train": train, "test": train[:3]})["test"] == train[:3]


def test_own_tsv_and_aligned_files_are_the_same(tmp_path):
    lines = [(f"sentence {'abc'[i % 3] * (i + 1)}", f"문장 {i}") for i in range(60)]
    table = write(tmp_path / "table" / "all.tsv", "".join(f"{a}\t{b}\tCC BY\n" for a, b in lines))
    write(tmp_path / "files" / "train.en", "".join(f"{a}\n" for a, _ in lines))
    write(tmp_path / "files" / "train.ko", "".join(f"{b}\n" for _, b in lines))
    one = ParallelTextDataModule(str(table)).pairs
    assert one == ParallelTextDataModule(str(tmp_path / "table")).pairs
    assert one == ParallelTextDataModule(str(tmp_path / "files"), "en", "ko").pairs
    turned = ParallelTextDataModule(str(table), columns=(2, 1)).pairs
    assert {other[::-1] for other in turned["train"] + turned["val"] + turned["test"]} == set(lines)


def test_what_is_too_long_is_left_out_of_training_and_said(tmp_path):
    lines = [f"sentence {'abc'[i % 3] * (i + 1)}\t문장 {i}\n" for i in range(60)]
    data = ParallelTextDataModule(str(write(tmp_path / "a.tsv", "".join(lines))), kind="characters", longest=40)
    assert data.parts["train"].lengths.max() <= 40 and "longer than 40 tokens left out" in str(data)
    assert len(data.parts["test"]) == len(data.pairs["test"])


BAD = {
    "no tab": ("a.tsv", "a\tb\nno tab here\n", "line 2"),
    "nothing behind the tab": ("a.tsv", "a\tb\nc\t\n", "line 2"),
    "empty": ("a.tsv", "", "empty"),
    "no tables": ("a.txt", "a\tb\n", ".tsv"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_refused_in_a_line(tasklight, tmp_path, name):
    file, text, word = BAD[name]
    write(tmp_path / "own" / file, text)
    flags = ["--data", OWN, "--data.root", str(tmp_path / "own")]
    code, _, err = tasklight("fit", "--config", str(ROOT / "configs/transformer.yaml"), *flags)
    assert code == 2 and word in one_line(err)
    assert not list(tmp_path.glob("runs/*/*"))


def test_bad_files_name_the_place(tmp_path):
    write(tmp_path / "train.en", "a\nb\n")
    write(tmp_path / "train.ko", "가\n")
    with pytest.raises(UserError, match=r"2 lines and .* 1"):
        read_aligned(tmp_path / "train.en", tmp_path / "train.ko")
    (tmp_path / "latin.tsv").write_bytes("a\tb\nc\té\n".encode("latin-1"))
    with pytest.raises(UserError, match="byte 6, in line 2"):
        read_tsv(tmp_path / "latin.tsv", (1, 2))
    with pytest.raises(UserError, match=r"train\.de"):
        ParallelTextDataModule(str(tmp_path), "de", "ko").load()


def test_sentences_of_files_and_of_the_command_line_are_translated(tmp_path):
    data = ParallelTextDataModule("nowhere", kind="characters")
    task = task_of("transformer", beam=2)
    data.load_state_dict({"tokenizers": [task.source_tokenizer.to_str(), task.tokenizer.to_str()]})
    write(tmp_path / "a.txt", "3 red cats\n\n!한 cats\n")
    sentences = data.predict_dataset([tmp_path])
    assert [sentences[i]["path"].rsplit(":", 1)[1] for i in range(len(sentences))] == ["1", "3"]
    sample = data.predict_prompts(["3 red cats"])[0]
    assert torch.equal(sample["source"], sentences[0]["source"])
    batch = {"source": sample["source"][None], "text": [sample["text"]], "path": [sample["path"]]}
    record = task.predict_step(batch, 0)[0]
    assert record["sentence"] == "3 red cats" and record["attention"].width > 10 * LINE
    assert Tokenizer.from_str(data.source_tokenizer).get_vocab_size() == task.source_tokenizer.get_vocab_size()


def test_sets_of_the_literature_are_read_in_the_layout_of_their_download(tmp_path):
    multi30k(tmp_path)
    tatoeba(tmp_path)
    data = Multi30kDataModule(str(tmp_path), "de", "fr")
    assert data.pairs["test"][1] == ("1 Hunde test2016 b", "1 chiens test2016 b") and len(data.pairs["train"]) == 120
    pairs = TatoebaDataModule(str(tmp_path)).pairs
    assert sum(map(len, pairs.values())) == 120 and any(
        ("I saw a.", "나는 0을 봤다.") in part for part in pairs.values()
    )


def test_packed_files_are_unpacked_whole(tmp_path, monkeypatch):
    content = gzip.compress(b"ein Hund\n")

    def retrieve(url, known_hash, name, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        assert known_hash == f"sha256:{hashlib.sha256(content).hexdigest()}"
        Path(folder, name).write_bytes(content)
        return str(Path(folder, name))

    monkeypatch.setattr("pooch.retrieve", retrieve)
    path = fetch(tmp_path / "set", "train.de", "https://nowhere/train.de.gz", hashlib.sha256(content).hexdigest())
    assert path.read_text() == "ein Hund\n" and not list(path.parent.glob(".*.part"))
