"""Classification: facts computed by hand, data that share nothing, folders as users have them, and fine-tuning."""

import json
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, write_class_folders
from PIL import Image, ImageDraw

from datamodules.augmentation import cut_out, random_shift
from datamodules.batches import generator_for
from datamodules.classification import ImageFolderDataModule
from datamodules.color_digits import ColorDigitsDataModule, random_photo
from datamodules.digits import DigitsDataModule, like_mnist
from datamodules.points import XorDataModule
from datamodules.torchvision_pictures import TorchvisionDataModule
from engine.errors import UserError
from nets.cnn import CNN
from nets.mlp import Perceptron
from tasks.class_metrics import classification_metrics, start_from
from tasks.classification import ClassificationTask

CNN_CONFIG = str(ROOT / "configs" / "cnn.yaml")
XOR_CONFIG = str(ROOT / "configs" / "xor.yaml")
FOLDERS = "datamodules.classification.ImageFolderDataModule"


def classification_task(num_classes: int = 3, **options) -> ClassificationTask:
    names = [f"class {c}" for c in range(num_classes)]
    return ClassificationTask(partial(CNN, width=4), 1, num_classes, names, torch.optim.AdamW, **options)


def refusal(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        ImageFolderDataModule(str(root), **options).prepare_data()
    return str(caught.value)


def test_accuracies_of_known_answers():
    truth = torch.tensor([0, 1, 2, 2])
    said = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0]), 7).float()
    values = classification_metrics(7).forward(said, truth)
    assert values["accuracy"] == 0.75
    assert values["per_class"][:3].tolist() == [1, 1, 0.5]
    assert values["confusion"][2, 0] == values["confusion"][2, 2] == 1
    assert float(values["calibration_error"]) == pytest.approx(0.25)  # quite sure, and wrong once in four times
    ranked = torch.tensor([[0.3, 0.2, 0.15, 0.1, 0.1, 0.09, 0.06]])
    assert classification_metrics(7).forward(ranked, torch.tensor([4]))["top5_accuracy"] == 1
    assert classification_metrics(7).forward(ranked, torch.tensor([5]))["top5_accuracy"] == 0


def test_the_baseline_names_the_most_frequent_class():
    data = DigitsDataModule(num_train=300)
    task = ClassificationTask(partial(CNN, width=4), 1, 10, data.class_names, torch.optim.AdamW)
    pictures = data.pictures
    most = np.bincount(pictures.labels[pictures.parts == "train"]).argmax()
    right = (pictures.labels[pictures.parts == "test"] == most).mean()
    assert task.baseline(data)["test/accuracy"] == pytest.approx(right)
    flat = pictures.images.reshape(len(pictures.images), -1) / 255
    train, test = pictures.parts == "train", pictures.parts == "test"
    means = np.stack([flat[train & (pictures.labels == c)].mean(0) for c in range(10)])
    nearest = ((flat[test][:, None] - means) ** 2).sum(2).argmin(1)
    reached = task.references(data)["nearest centroid"]["test/accuracy"]
    assert reached == pytest.approx((nearest == pictures.labels[test]).mean(), abs=0.003)


def test_mixed_pictures_have_mixed_truths():
    task = classification_task(mixup=0.5, cutmix=1.0)
    task.log = lambda *_, **__: None
    torch.manual_seed(0)
    batch = {"image": torch.rand(8, 1, 16, 16), "label": torch.arange(8) % 3}
    losses = {float(task.training_step(batch, 0).detach()) for _ in range(4)}
    assert len(losses) == 4  # another mixture every time
    plain = classification_task()
    plain.log = lambda *_, **__: None
    plain.net.load_state_dict(task.net.state_dict())
    assert float(plain.eval().training_step(batch, 0)) == float(plain.training_step(batch, 0))


def test_label_smoothing_moves_the_best_answer_away_from_certainty():
    logits, label = torch.tensor([[30.0, 0.0, 0.0]]), torch.tensor([0])
    task = classification_task(label_smoothing=0.3)
    task.log, task.net = lambda *_, **__: None, torch.nn.Identity()
    assert float(task.training_step({"image": logits, "label": label}, 0)) == pytest.approx(0.2 * 30)


def test_a_picture_and_its_mirror_image_get_the_same_answer_if_asked_for():
    pictures, plain, mirrored = (
        torch.rand(2, 1, 8, 8),
        classification_task().eval(),
        classification_task(mirror=True).eval(),
    )
    mirrored.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(mirrored(pictures), mirrored(pictures.flip(3)))
        torch.testing.assert_close(mirrored(pictures), (plain(pictures) + plain(pictures.flip(3))) / 2)
        assert not torch.allclose(plain(pictures), plain(pictures.flip(3)))
        torch.testing.assert_close(mirrored.train()(pictures), plain.train()(pictures))


def test_a_frozen_net_trains_its_last_layer_only():
    task = classification_task(freeze=True).train()
    before = {name: value.clone() for name, value in task.net.state_dict().items()}
    optimizer = torch.optim.SGD(task.parameters(), lr=1.0)
    task.log = lambda *_, **__: None
    task.training_step({"image": torch.rand(8, 1, 16, 16), "label": torch.arange(8) % 3}, 0).backward()
    optimizer.step()
    changed = {name for name, value in task.net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}  # not even the running means
    task.train_head_only(False)
    assert all(parameter.requires_grad for parameter in task.net.parameters()) and task.train().net.training


def test_other_classes_start_with_a_new_last_layer(tmp_path):
    old, path = classification_task(3), str(tmp_path / "old.ckpt")
    torch.save({"state_dict": old.state_dict(), "hyper_parameters": {"class_names": old.class_names}}, path)
    for num_classes, names in ((5, ["a", "b", "c", "d", "e"]), (3, ["a", "b", "c"])):
        new = classification_task(num_classes)
        head = new.net.head.weight.clone()
        said = start_from(new.net, path, names)
        assert "new: head.weight, head.bias" in said and torch.equal(new.net.head.weight, head)
        assert torch.equal(new.net.features[0].weight, old.net.features[0].weight)
    assert "new: none" in start_from(new.net, path, old.class_names)
    assert torch.equal(new.net.head.weight, old.net.head.weight)
    with pytest.raises(UserError, match=r"no.ckpt does not exist"):
        start_from(new.net, str(tmp_path / "no.ckpt"), ["a"])
    other = Perceptron(2, 2)
    with pytest.raises(UserError, match="nothing of"):
        start_from(other, path, ["a"])


def test_fine_tuning_from_a_run(tasklight, tmp_path):
    small = ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--model.net.width", "4"]
    digits = ["--data.num_train", "200", "--trainer.max_epochs", "1"]
    assert tasklight("fit", "--config", CNN_CONFIG, *small, *digits)[0] == 0
    write_class_folders(tmp_path / "few", count=8, names=("one", "two", "three"))
    for path in (tmp_path / "few").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    few = ["--data", FOLDERS, "--data.root", str(tmp_path / "few"), "--data.batch_size", "4"]
    flags = [*few, "--config", str(ROOT / "configs/addons/finetune.yaml"), "--model.init_from", "runs/cnn/0"]
    code, out, err = tasklight("fit", "--config", CNN_CONFIG, *small, *flags, "--trainer.max_epochs", "4")
    assert code == 0, err
    assert "tensors fit; new: head.weight, head.bias" in out
    start = torch.load("runs/cnn/0/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    end = torch.load("runs/cnn/1/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(start["net.features.0.weight"], end["net.features.0.weight"])  # it was unfrozen
    flags += ["--trainer.callbacks.at", "1.0"]
    assert tasklight("fit", "--config", CNN_CONFIG, *small, *flags, "--trainer.max_epochs", "4")[0] == 0
    end = torch.load("runs/cnn/2/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(start["net.features.0.weight"], end["net.features.0.weight"])


@pytest.mark.parametrize("data", [DigitsDataModule(num_train=300), ColorDigitsDataModule(num_train=300)])
def test_digits(data):
    data.prepare_data()
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["image"].shape == (64, data.in_channels, data.image_size, data.image_size)
    assert batch["image"].min() >= 0 and batch["image"].max() <= 1
    assert batch["label"].dtype == torch.int64 and data.num_classes == len(data.class_names) == 10
    parts = {part: {row.tobytes() for row in data.pictures.images[data.pictures.parts == part]} for part in
             ("train", "val", "test")}  # fmt: skip
    assert not parts["train"] & parts["test"] and not parts["train"] & parts["val"] and not parts["val"] & parts["test"]
    mean, std = data.statistics
    torch.testing.assert_close(mean[0], torch.tensor(data.pictures.images[:300, :, :, 0].mean() / 255).float())
    assert std.shape == mean.shape == (data.in_channels,)


def test_color_digits_have_another_background_every_epoch():
    data = ColorDigitsDataModule(num_train=100)
    dataset = data.train_dataset()
    first, again, later = (dataset.__getitems__([n]) for n in (3, 3, 103))
    assert torch.equal(first["photo"], again["photo"]) and torch.equal(first["digit"], later["digit"])
    assert not torch.equal(first["photo"], later["photo"])
    blended = data.pictures.images[data.pictures.parts == "test"].astype(int)
    digits, _, patches = data.sources["test"]
    assert np.array_equal(blended[501], np.abs(patches[501].astype(int) - digits[1]).transpose(1, 2, 0))


def test_random_changes_keep_what_they_should():
    image = torch.rand(6, 3, 12, 12)
    assert torch.equal(random_shift(image, 0, False, generator_for(1)), image)
    shifted = random_shift(image, 2, True, generator_for(1))
    assert shifted.shape == image.shape and not torch.equal(shifted, image)
    assert all(torch.isin(shifted[i], image[i]).all() for i in range(6))  # whole pixels of the same picture
    cut = cut_out(image, 4, generator_for(2))
    assert 4 <= int((cut != image).any(1).sum((1, 2)).max()) <= 25
    photo = random_photo(image, generator_for(3))
    for i in range(6):
        values = torch.cat([image[i].flatten(), 1 - image[i].flatten()])
        assert torch.isin(photo[i], values).all()


def test_a_digit_on_paper_is_prepared_as_those_of_mnist_were():
    paper = Image.new("L", (300, 200), 230)
    ImageDraw.Draw(paper).line([(40, 60), (40, 160)], fill=20, width=14)  # dark on bright, off the middle
    pixels = like_mnist(paper)[:, :, 0]
    ys, xs = np.nonzero(pixels > 100)
    assert pixels.shape == (28, 28) and pixels[0, 0] == 0 and pixels.max() > 200
    assert ys.max() - ys.min() + 1 == 20 and abs(xs.mean() - 13.5) < 1 and abs(ys.mean() - 13.5) < 1
    assert not like_mnist(Image.new("L", (50, 50), 200)).any()
    digit = DigitsDataModule(num_train=300).pictures.images[0]
    again = like_mnist(Image.fromarray(digit[:, :, 0]))
    assert np.corrcoef(again.ravel(), digit.ravel())[0, 1] > 0.8


def test_folder_of_classes(tmp_path):
    write_class_folders(tmp_path / "a", names=("ring", "disc", "bar"))
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    (tmp_path / "a" / "ring" / "more").mkdir()
    (tmp_path / "a" / "ring" / "00.png").rename(tmp_path / "a" / "ring" / "more" / "0.png")
    (tmp_path / "a" / "ring" / "Thumbs.db").write_bytes(b"junk")
    data = ImageFolderDataModule(str(tmp_path / "a"), size=24)
    data.prepare_data()
    assert data.class_names == ["bar", "disc", "ring"] and data.in_channels == 3 and data.image_size == 24
    assert [int((data.pictures.parts == part).sum()) for part in ("train", "val", "test")] == [48, 6, 6]
    assert "48 train / 6 val / 6 test colour pictures of 24x24, 3 classes" in str(data)
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (6, 3, 24, 24)


def test_identical_pictures_stay_on_one_side(tmp_path):
    write_class_folders(tmp_path / "a", count=30)
    for path in sorted((tmp_path / "a").rglob("*.png")):
        (path.parent / f"copy_{path.name}").write_bytes(path.read_bytes())
    pictures = ImageFolderDataModule(str(tmp_path / "a")).pictures
    sides: dict[bytes, set[str]] = {}
    for image, part in zip(pictures.images, pictures.parts, strict=True):
        sides.setdefault(image.tobytes(), set()).add(part)
    assert len(sides) == 60 and all(len(parts) == 1 for parts in sides.values())


def test_folders_that_do_not_fit_are_refused_by_name(tmp_path):
    assert "is not a folder" in refusal(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "holds no folder of pictures" in refusal(tmp_path / "empty")
    write_class_folders(tmp_path / "one", names=("alone",))
    assert "one class only, 'alone'" in refusal(tmp_path / "one")
    write_class_folders(tmp_path / "hollow")
    (tmp_path / "hollow" / "void").mkdir()
    assert "void holds no pictures" in refusal(tmp_path / "hollow")
    write_class_folders(tmp_path / "split" / "train")
    write_class_folders(tmp_path / "split" / "test", names=("disc", "new"))
    assert "class 'new'" in refusal(tmp_path / "split")
    write_class_folders(tmp_path / "broken")
    for i in range(5):
        (tmp_path / "broken" / "disc" / f"{i:02d}.png").write_bytes(b"\x89PNG broken")
    assert "5 of 40 pictures" in refusal(tmp_path / "broken") and "00.png" in refusal(tmp_path / "broken")
    write_class_folders(tmp_path / "few", count=1)
    assert "at least three" in refusal(tmp_path / "few") or "no training" in refusal(tmp_path / "few")


def test_a_checkpoint_of_other_classes_is_refused(tasklight, tmp_path):
    write_class_folders(tmp_path / "two")
    write_class_folders(tmp_path / "three", names=("a", "b", "c"))
    small = ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--model.net.width", "4", "--data", FOLDERS]
    fit = ["fit", "--config", CNN_CONFIG, *small, "--trainer.max_epochs", "1", "--data.root", str(tmp_path / "two")]
    assert tasklight(*fit)[0] == 0
    code, _, err = tasklight("test", "--config", CNN_CONFIG, "--data.root", str(tmp_path / "three"))
    assert code == 2 and "num_classes = 2, the data 3" in err.replace("\n", " ")


def test_cifar_is_read_as_it_is_downloaded(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
        (base / name).write_bytes(pickle.dumps(batch))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = TorchvisionDataModule("CIFAR10", str(tmp_path))
    data.prepare_data()
    assert data.class_names == names and data.in_channels == 3 and data.image_size == 32
    assert [int((data.pictures.parts == part).sum()) for part in ("train", "val", "test")] == [88, 12, 20]


def test_a_dead_link_is_one_line(tmp_path, monkeypatch):
    def dead(*_, **__):
        raise RuntimeError("Error downloading train-images")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", dead)
    with pytest.raises(UserError, match=r"MNIST could not be downloaded to .*Error downloading"):
        TorchvisionDataModule("MNIST", str(tmp_path)).prepare_data()


def test_exclusive_or_is_the_same_four_rows_everywhere():
    data = XorDataModule(repeats=5)
    batches = list(data.train_dataloader())
    rows = torch.cat([batch["features"] for batch in batches])
    labels = torch.cat([batch["label"] for batch in batches])
    assert rows.shape == (20, 2) and torch.equal(labels, (rows.sum(1) == 1).long())
    assert len(next(iter(data.test_dataloader()))["label"]) == 4


@pytest.mark.slow
def test_exclusive_or_needs_a_hidden_layer(tasklight):
    solved, perceptron = [], []
    quiet = ["--trainer.logger", "false", "--trainer.accelerator", "cpu"]
    for seed in range(20):
        flags = [*quiet, "--seed_everything", str(seed)]
        assert tasklight("fit", "--config", XOR_CONFIG, *flags, "--recipe", "mlp")[0] == 0
        solved.append(json.loads(Path(f"runs/mlp/{seed}/summary.json").read_text())["metrics"]["test/accuracy"])
        flags += ["--recipe", "perceptron", "--model.net", "nets.mlp.Perceptron"]
        assert tasklight("fit", "--config", XOR_CONFIG, *flags)[0] == 0
        path = Path(f"runs/perceptron/{seed}/summary.json")
        perceptron.append(json.loads(path.read_text())["metrics"]["test/accuracy"])
    assert solved == [1.0] * 20 and max(perceptron) <= 0.75
