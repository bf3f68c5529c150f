"""Texts: tokens, windows, counting, drawing of tokens, and what users bring."""

import math
import warnings
from functools import partial
from inspect import signature
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib import rcParams
from PIL import Image
from recipes import shakespeare, treebank
from test_engine import one_line
from tokenizers import Tokenizer

from datamodules.python_reference import SHARED, PythonReferenceDataModule, split_topics, topics
from datamodules.text import TextFolderDataModule, split_off
from datamodules.text_files import read_text
from datamodules.text_sets import TextSetDataModule
from datamodules.text_windows import MeasuredWindows, TrainingWindows
from datamodules.tokenization import encode, learn_tokenizer
from engine.errors import UserError
from engine.fonts import font
from engine.plots import bars
from engine.text_pictures import text_heat, text_table, wrapped
from nets.attention import SelfAttention
from nets.gpt import GPT
from nets.lstm import LSTM
from tasks.kneser_ney import KneserNey
from tasks.text_generation import TextGenerationTask, drawn

KOREAN = "나랏말싸미 듕귁에 달아, 문자와로 서로 사맛디 아니할쎄.\n이런 전차로 어린 백성이 니르고져 홇 배 이셔도\n"
FOLDER = "datamodules.text.TextFolderDataModule"
LM = {"gpt": partial(GPT, dim=16, depth=2, num_heads=2), "lstm": partial(LSTM, dim=8, width=12, depth=2)}


def task_of(net: str, text: str = KOREAN, **settings) -> TextGenerationTask:
    tokenizer = learn_tokenizer(text, "characters", 0).to_str()
    torch.manual_seed(0)
    return TextGenerationTask(LM[net], tokenizer, partial(torch.optim.SGD, lr=0.1), **settings).eval()


@pytest.mark.parametrize("kind", ["characters", "words", "bpe"])
def test_tokens_give_the_text_back(kind):
    text = KOREAN + "def f(x):\n    return  x\t+ 1\n"
    tokenizer = learn_tokenizer(text, kind, 500)
    tokens, characters = encode(tokenizer, text)
    assert tokenizer.decode(tokens.tolist(), skip_special_tokens=False) == text
    assert len(tokens) == len(characters) and characters.sum() == len(text)
    assert Tokenizer.from_str(tokenizer.to_str()).get_vocab_size() == tokenizer.get_vocab_size()


def test_wordpiece_knows_its_words():
    tokenizer = learn_tokenizer("the cat sat on the mat " * 20, "wordpiece", 60)
    tokens, characters = encode(tokenizer, "the cat sat")
    assert tokenizer.decode(tokens.tolist()) == "the cat sat" and characters.sum() == 11


def test_training_never_saw_what_is_unknown():
    tokens, _ = encode(learn_tokenizer("abc", "characters", 0), "abz")
    assert tokens.tolist() == [1, 2, 0]


def test_windows_cover_an_epoch_once_and_targets_follow():
    text = np.arange(103)
    dataset = TrainingWindows(text, 10, 10, 1)
    batch = dataset.__getitems__([20 + i for i in range(10)])  # of the third epoch
    tokens = batch["tokens"]
    assert tokens.shape == (10, 11) and batch["fresh"]
    assert (tokens[:, 1:] == tokens[:, :-1] + 1).all()
    assert len(set(tokens[:, :-1].flatten().tolist())) == 100


def test_streams_go_on_from_batch_to_batch(tmp_path):
    (tmp_path / "text.txt").write_text("".join(chr(0x4E00 + i) for i in range(2000)))
    data = TextFolderDataModule(str(tmp_path / "text.txt"), context=10, batch_size=4)
    data.trainer = SimpleNamespace(lightning_module=task_of("lstm"))
    batches = list(data.train_dataloader())
    assert [batch["fresh"] for batch in batches] == [True, *[False] * (len(batches) - 1)]
    for before, after in pairwise(batches):
        assert torch.equal(before["tokens"][:, -1], after["tokens"][:, 0])


@pytest.mark.parametrize("streams", [0, 3])
@pytest.mark.parametrize("length", [12, 50, 64, 101])
def test_every_token_is_measured_once(streams, length):
    text = np.arange(length)
    dataset = MeasuredWindows(text, np.full(length, 2), 8, streams)
    targets: list[int] = []
    characters = 0
    for batch in dataset.in_order(4):
        assert batch["counts"].shape == batch["tokens"][:, 1:].shape
        targets += batch["tokens"][:, 1:][batch["counts"]].tolist()
        characters += int(batch["characters"])
    assert sorted(targets) == list(range(1, length)) and characters == 2 * (length - 1)


def test_overlapping_windows_give_all_but_the_first_targets_half_a_window_before_them():
    dataset = MeasuredWindows(np.arange(100), np.ones(100), 8, 0)
    for batch in dataset.in_order(1):
        before = batch["counts"][0].nonzero().min()
        assert before >= 4 or batch["tokens"][0, 0] == 0


def test_topics_that_share_a_line_are_on_one_side():
    lines = {
        part: {line.strip() for name in names for line in topics[name].splitlines() if len(line.strip()) >= SHARED}
        for part, names in split_topics().items()
    }
    assert not lines["train"] & lines["test"] and not lines["train"] & lines["val"] and not lines["val"] & lines["test"]
    parts = PythonReferenceDataModule().texts
    assert all(0.07 < len(parts[part]) / sum(map(len, parts.values())) < 0.13 for part in ("val", "test"))


def test_parts_are_cut_off_at_line_ends():
    text = "".join(f"line {i}\n" for i in range(100))
    parts = split_off({"train": text})
    assert parts["train"] + parts["val"] + parts["test"] == text
    assert all(part.endswith("\n") for part in parts.values())
    assert split_off({"train": "a\n", "val": "b\n", "test": "c\n"}) == {"train": "a\n", "val": "b\n", "test": "c\n"}


@pytest.mark.parametrize("kind", ["characters", "words", "bpe", "wordpiece"])
def test_the_same_text_has_the_same_tokens_every_time(kind):
    rng = np.random.default_rng(0)
    text = " ".join("".join(rng.choice(list("abcdefghij"), 6)) for _ in range(300))  # full of ties
    assert len({learn_tokenizer(text, kind, 60).to_str() for _ in range(10)}) == 1


def test_kneser_ney_is_a_distribution_and_counts():
    rng = np.random.default_rng(0)
    model = KneserNey(rng.integers(0, 5, 300), 5, 4)
    for context in ([0, 1, 2], [4, 4, 4], [3, 0, 3]):
        shares = [2 ** -model.bits(np.array([*context, token]))[0] for token in range(5)]
        assert sum(shares) == pytest.approx(1) and min(shares) > 0


def test_kneser_ney_of_four_letters_by_hand():
    # "abab": bigrams ab, ba, ab. As endings a and b each come behind one letter. No counts of 1 and 2: discount 0.5.
    model = KneserNey(np.array([0, 1, 0, 1]), 2, 2)
    once, twice = 1, 1  # ba once, ab twice: discount 1 / 3
    off = once / (once + 2 * twice)
    lower = (1 - 0.5) / 2 + 0.5 * 2 / 2 * 0.5  # of b, alone
    assert 2 ** -model.bits(np.array([0, 1]))[0] == pytest.approx((2 - off) / 2 + off / 2 * lower)


@pytest.mark.parametrize("net", LM)
def test_going_on_says_the_same_as_starting_over(net):
    task = task_of(net, temperature=0.0)
    tokens = torch.randint(1, 20, (2, 7), generator=torch.Generator().manual_seed(0))
    quick = task.generate(tokens, 12, torch.Generator())
    slow = tokens
    for _ in range(12):
        with torch.no_grad():
            slow = torch.cat([slow, task(slow)[:, -1:].argmax(2)], dim=1)
    assert torch.equal(quick, slow[:, 7:])


def test_attention_is_blind_for_what_comes():
    attention, tokens = SelfAttention(16, 2, causal=True), torch.randn(1, 6, 16)
    changed = tokens.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(attention(tokens)[:, :4], attention(changed)[:, :4])
    assert not torch.allclose(attention(tokens)[:, 4:], attention(changed)[:, 4:])


def test_masked_tokens_are_not_read():
    attention, tokens = SelfAttention(16, 2), torch.randn(1, 6, 16)
    mask = torch.tensor([[True] * 4 + [False] * 2])
    torch.testing.assert_close(attention(tokens, mask)[:, :4], attention(tokens[:, :4]))


def test_a_text_may_be_longer_than_what_is_remembered():
    net = GPT(10, dim=16, depth=2, num_heads=2, reach=8).eval()
    text = torch.randint(10, (1, 30))
    logits, state = net.go_on(text, None)
    torch.testing.assert_close(logits, net.go_on(text[:, -8:], None)[0])  # no farther than in training
    for _ in range(5):
        logits, state = net.go_on(logits.argmax(1, keepdim=True), state)
    assert state[0] == 13 and state[1][0][0].shape[2] == 7


def test_tokens_read_no_farther_than_in_training():
    reach = signature(GPT).parameters["reach"].default
    for data in (PythonReferenceDataModule, TextFolderDataModule, TextSetDataModule):
        assert reach <= signature(data).parameters["context"].default


def test_drawing_follows_temperature_top_k_and_top_p():
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log().expand(4000, -1)
    draw = partial(drawn, logits, generator=torch.Generator().manual_seed(0))

    def shares(tokens):
        return (torch.bincount(tokens.flatten(), minlength=4) / 4000).tolist()

    assert shares(draw(1.0, 0, 1.0)) == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.03)
    assert shares(draw(1.0, 2, 1.0)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.03)
    assert shares(draw(1.0, 0, 0.75)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.03)
    assert shares(draw(0.5, 0, 1.0))[0] == pytest.approx(0.25 / (0.25 + 0.0625 + 0.0225 + 0.01), abs=0.03)
    assert shares(draw(0.0, 0, 1.0)) == [1, 0, 0, 0]


def test_bits_of_a_net_that_knows_nothing():
    task = task_of("lstm")
    for parameter in task.net.parameters():
        parameter.data.zero_()
    tokens, characters = encode(task.tokenizer, KOREAN)
    for batch in MeasuredWindows(tokens, characters, 8, 0).in_order(4):
        task.trainer = SimpleNamespace(validating=True)
        task._measure(task.val_sums, batch)
    bits = float(task.val_sums["bits"].compute() / task.val_sums["characters"].compute())
    assert bits == pytest.approx(math.log2(task.tokenizer.get_vocab_size()))


@pytest.mark.parametrize(
    "content, words",
    [(b"one\ntw\xff\n", ["UTF-8", "byte 6", "line 2"]), (b"", ["empty"])],
)
def test_odd_files_are_named(tmp_path, content, words):
    (tmp_path / "odd.txt").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_text(tmp_path / "odd.txt")
    assert all(word in str(error.value) for word in [*words, "odd.txt"])


def test_words_of_the_treebank_end_their_lines_with_a_token(tmp_path):
    treebank(tmp_path)
    data = TextSetDataModule("ptb", str(tmp_path), "words", 100, context=8)
    data.prepare_data()
    tokens, _ = data.tokens["test"]
    words = sum(len(line.split()) + 1 for line in (tmp_path / "ptb" / "ptb.test.txt").read_text().splitlines())
    assert len(tokens) == words


def test_the_last_tenth_of_shakespeare_is_the_test_part(tmp_path):
    shakespeare(tmp_path)
    text = (tmp_path / "tinyshakespeare" / "input.txt").read_text()
    parts = TextSetDataModule("tinyshakespeare", str(tmp_path)).load()
    assert parts["val"] + parts["train"] + parts["test"] == text
    assert len(parts["test"]) == pytest.approx(len(text) / 10, abs=1)


def test_what_cannot_be_downloaded_is_told_in_a_line(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("socket.create_connection", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(UserError, match="could not be downloaded"):
        TextSetDataModule("tinyshakespeare", str(tmp_path)).load()
    assert not list((tmp_path / "tinyshakespeare").glob("*.txt"))


def test_a_text_shorter_than_a_window_is_refused(tasklight, tmp_path):
    (tmp_path / "short.txt").write_text(KOREAN, "utf-8")
    flags = ["--data", FOLDER, "--data.root", str(tmp_path / "short.txt"), "--data.context", "500"]
    code, _, err = tasklight("fit", "--config", str(ROOT / "configs/gpt.yaml"), *flags)
    assert code == 2 and "data.context" in one_line(err)


def test_prompts_are_gone_on_with_the_same_text_for_the_same_seed(tasklight):
    small = [
        "--model.net.dim",
        "16",
        "--model.net.depth",
        "1",
        "--model.net.num_heads",
        "2",
        "--data.num_train",
        "9000",
    ]
    flags = [*small, "--trainer.max_epochs", "1", "--trainer.logger", "false"]
    assert tasklight("fit", "--config", str(ROOT / "configs/gpt.yaml"), *flags)[0] == 0
    said = []
    for seed in ("1", "1", "2"):
        asked = ["--prompt", "The import", "--model.length", "50", "--seed_everything", seed]
        code, out, _ = tasklight("predict", "--ckpt_path", "runs/gpt/0", *asked)
        assert code == 0
        said.append(out[out.index("The import") :])
    assert said[0] == said[1] != said[2] and len(said[0]) >= 50
    both = ["--prompt", "a", "--input", "b"]
    code, _, err = tasklight("predict", "--ckpt_path", "runs/gpt/0", *both)
    assert code == 2 and "--input" in one_line(err) and "--prompt" in one_line(err)


def test_hangul_has_glyphs():
    letters = font(14)
    assert rcParams["axes.unicode_minus"]  # which the package that brings the font would change if it was imported
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a figure that lacks a glyph
        bars({"사과": 0.5, "apple": 0.7}, "한글")
    missing = letters.getmask("\uffff").getbbox()
    boxes = {character: letters.getmask(character) for character in "한글"}
    assert all(mask.getbbox() != missing for mask in boxes.values())
    assert np.any(np.asarray(boxes["한"]) != np.asarray(boxes["글"])[: len(np.asarray(boxes["한"]))])
    assert wrapped("가나다라마바사", 60, letters) != ["가나다라마바사"]
    assert wrapped("one two three four", 70, letters) == ["one two ", "three four"]
    for picture in (text_table([["a", "b"], ["1", KOREAN]], (60, 300)), text_heat([("한글", 1.0)], 4.0)):
        assert isinstance(picture, Image.Image) and np.asarray(picture).std() > 5
