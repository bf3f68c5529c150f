"""Captchas: decoding that a person can do by hand, what is drawn, and what users bring."""

from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image, ImageDraw, ImageFont
from test_engine import one_line
from torch.nn import functional as F

from datamodules.captcha import CaptchaFolderDataModule
from datamodules.captcha_generator import CHARSET, Drawn
from engine.errors import UserError
from nets.crnn import CRNN
from nets.ctc import beam_search, greedy
from tasks.captcha_ocr import CaptchaOCRTask, ocr_metrics, update

FOLDER = "datamodules.captcha.CaptchaFolderDataModule"


def write_captchas(folder: Path, texts: list[str]) -> None:
    """Write texts into pictures named after them."""
    folder.mkdir(parents=True, exist_ok=True)
    for text in texts:
        picture = Image.new("L", (120, 40), 230)
        ImageDraw.Draw(picture).text((8, 4), text, 30, ImageFont.load_default(26))
        picture.save(folder / f"{text}.png")


def some_texts(count: int, charset: str = "abc1", length: int = 4) -> list[str]:
    return ["".join(text) for text, _ in zip(product(charset, repeat=length), range(count), strict=False)]


def said(*steps: int) -> torch.Tensor:
    """Return logits of a net that is sure of a number at every step, (1, steps, 4)."""
    return 9.0 * F.one_hot(torch.tensor([steps]), 4)


@pytest.mark.parametrize(
    "steps, text",
    [((1, 1, 0, 2, 0), [1, 2]), ((0, 1, 0, 1, 1), [1, 1]), ((3, 2, 1), [3, 2, 1]), ((0, 0), []), ((2, 2, 2), [2])],
)
def test_greedy_decoding_merges_and_keeps_the_first_letter(steps, text):
    assert greedy(said(*steps))[0].tolist() == text
    assert list(beam_search(said(*steps)[0].float().softmax(1))[0][0]) == text


def test_beam_search_sums_over_all_ways_to_say_a_text():
    probabilities = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    probabilities /= probabilities.sum(1, keepdim=True)
    sums: dict[tuple[int, ...], float] = {}
    for path in product(range(3), repeat=4):
        text = tuple(greedy(F.one_hot(torch.tensor([path]), 3))[0].tolist())
        sums[text] = sums.get(text, 0) + float(torch.stack([probabilities[t, c] for t, c in enumerate(path)]).prod())
    found = [(text, share) for text, share in beam_search(probabilities, width=100) if share]
    assert dict(found) == pytest.approx(sums)
    assert [text for text, _ in found] == sorted(sums, key=lambda text: -sums[text])


def test_beam_search_finds_what_greedy_decoding_misses():
    probabilities = torch.tensor([[0.4, 0.3, 0.3], [0.4, 0.6, 0.0], [0.6, 0.4, 0.0]])
    assert greedy(probabilities[None])[0].tolist() == [1]
    likely, probability = beam_search(probabilities)[0]
    loss = F.ctc_loss(probabilities.log()[:, None], torch.tensor([likely]), [3], [len(likely)], reduction="sum")
    assert probability == pytest.approx(float(torch.exp(-loss)), rel=1e-4)


def test_exact_match_and_character_error_rate():
    metrics = ocr_metrics()
    update(metrics, ["abc", "abd", ""], ["abc", "abc", "xy"])
    assert float(metrics["exact_match"].compute()) == pytest.approx(1 / 3)
    assert float(metrics["cer"].compute()) == pytest.approx(3 / 8)


def test_captchas_can_be_drawn_again():
    one, other = (Drawn("train", 5, (48, 128)) for _ in range(2))
    text, picture = one[3]
    assert len(text) == 5 and set(text) <= set(CHARSET) and picture.shape == (48, 128)
    assert other[3][0] == text and np.array_equal(other[3][1], picture)
    assert Drawn("val", 5, (48, 128))[3][0] != text


def test_texts_are_file_names_or_stand_in_a_table(tmp_path):
    write_captchas(tmp_path / "named", some_texts(40))
    named = CaptchaFolderDataModule(str(tmp_path / "named"))
    named.prepare_data()
    assert named.charset == "1abc" and sorted(named.texts.texts) == sorted(some_texts(40))
    assert [len(named.of(part)) for part in ("train", "val", "test")] == [32, 4, 4]
    write_captchas(tmp_path / "listed", some_texts(40))
    for i, text in enumerate(some_texts(40)):
        (tmp_path / "listed" / f"{text}.png").rename(tmp_path / "listed" / f"{i}.png")
    rows = [f"{i}.png,{text}" for i, text in enumerate(some_texts(40))]
    (tmp_path / "listed" / "labels.csv").write_text("\n".join(["file,text", *rows]) + "\n")
    listed = CaptchaFolderDataModule(str(tmp_path / "listed"))
    assert sorted(listed.texts.texts) == sorted(named.texts.texts)


def test_targets_are_numbers_of_characters_from_1_on(tmp_path):
    write_captchas(tmp_path, [*some_texts(40), "ab"])
    data = CaptchaFolderDataModule(str(tmp_path))
    batch = next(iter(data.in_order("train")))
    for target, length, text in zip(batch["target"], batch["length"], data.of("train"), strict=True):
        assert "".join(data.charset[number - 1] for number in target[:length]) == text
        assert (target[length:] == 0).all()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"file,text\nlost.png,abcd\n", ["lost.png"]),
        (b"file,text\naaaa.png\n", ["line 2"]),
        (b"file,text\naaaa.png,\n", ["line 2"]),
        (b"file,text\n\xff.png,a\n", ["UTF-8", "byte 10"]),
    ],
)
def test_odd_tables_are_refused(tmp_path, content, words):
    write_captchas(tmp_path, some_texts(5))
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError) as error:
        CaptchaFolderDataModule(str(tmp_path)).load()
    assert all(word in str(error.value) for word in [*words, "labels.csv"])


def test_characters_that_training_never_shows_are_refused(tmp_path):
    for part, texts in (("train", some_texts(20)), ("val", ["aaaa"]), ("test", ["abz!"])):
        write_captchas(tmp_path / part, texts)
    with pytest.raises(UserError, match=r"'!'|!, z") as error:
        CaptchaFolderDataModule(str(tmp_path)).prepare_data()
    assert "abz!" in str(error.value) and "test" in str(error.value)


def test_texts_longer_than_the_net_can_say_are_refused_before_training(tasklight, tmp_path):
    write_captchas(tmp_path / "own", some_texts(20, length=5))  # aaaaa needs five steps and four blanks between
    flags = ["--data", FOLDER, "--data.root", str(tmp_path / "own"), "--data.width", "64"]
    code, _, err = tasklight("fit", "--config", str(ROOT / "configs/captcha_crnn.yaml"), *flags)
    line = one_line(err)
    assert code == 2 and "9 time steps" in line and "8" in line and "data.width" in line
    assert not list(tmp_path.glob("runs/*/*"))


def test_brightness_does_not_change_what_is_read():
    task = CaptchaOCRTask(partial(CRNN, width=4, hidden=8), 1, "abc", partial(torch.optim.SGD, lr=0.1)).eval()
    image = torch.rand(2, 1, 48, 128)
    torch.testing.assert_close(task(image), task(0.5 * image + 0.2), atol=2e-2, rtol=0)
    assert task(image).shape == (2, 16, 4)
