"""Photographs, and the tasks that restore them: facts that a person can compute by hand, and what users bring."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from skimage.color import lab2rgb, rgb2lab, rgb2ycbcr
from test_engine import one_line

from datamodules.photo_files import PhotosToRestore
from datamodules.photos import PhotoFolderDataModule
from datamodules.restoration_sets import RestorationSetsDataModule
from datamodules.sample_photos import SamplePhotosDataModule
from engine.errors import UserError
from engine.similarity import SSIM
from engine.tiles import OVERLAP, SIDE, in_tiles
from nets.colornet import ColorNet
from nets.dncnn import DnCNN
from nets.srresnet import SRResNet
from tasks.colorization import ColorizationTask, colourfulness, join_lab, split_lab
from tasks.denoising import PHOTO_METHODS, SMALL_METHODS, DenoisingTask, apply, noise_of, restoration_metrics
from tasks.super_resolution import SuperResolutionTask, luma, resized

SGD = partial(torch.optim.SGD, lr=0.1)
FOLDER = "datamodules.photos.PhotoFolderDataModule"


def photo(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Return a smooth picture of random colours, of a width and a height."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def write_photos(folder: Path, count: int = 12, mode: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        photo((60 + i, 50), i, mode).save(folder / f"{i:02d}.png")


def test_psnr_of_a_known_error_is_the_mean_over_pictures():
    truth = torch.full((2, 1, 16, 16), 0.5)
    picture = truth + torch.tensor([0.1, 0.01])[:, None, None, None]
    values = restoration_metrics()(picture, truth)
    assert values["psnr"] == pytest.approx((20 + 40) / 2, abs=1e-3)
    assert restoration_metrics()(truth, truth)["ssim"] == pytest.approx(1)


def test_similarity_is_measured_in_full_precision():
    truth = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    picture = (truth + 0.05).clamp(0, 1)
    full, half = SSIM(), SSIM()
    full.update(picture, truth)
    with torch.autocast("cpu", torch.bfloat16):
        half.update(picture, truth)
    assert torch.equal(half.compute(), full.compute())


def test_noise_of_a_picture_does_not_depend_on_its_batch():
    pictures = torch.rand(3, 1, 8, 8)
    assert torch.equal(noise_of(pictures)[1:2], noise_of(pictures[1:2]))
    assert not torch.equal(noise_of(pictures)[0], noise_of(pictures)[1])
    assert float(noise_of(torch.rand(1, 3, 200, 200)).std()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", [*PHOTO_METHODS, *SMALL_METHODS])
@pytest.mark.parametrize("channels", [1, 3])
def test_methods_to_compare_with_take_noise_away(name, channels):
    clean = np.asarray(photo((41, 30)), np.float32)[:, :, :channels] / 255
    noisy = clean + 0.1 * np.random.default_rng(0).normal(size=clean.shape).astype(np.float32)
    restored = apply((PHOTO_METHODS | SMALL_METHODS)[name], noisy, 0.1)
    assert restored.shape == clean.shape
    assert np.square(restored - clean).mean() < 0.6 * np.square(noisy - clean).mean()


def test_training_noise_has_the_strength_that_was_asked_for():
    seen = []

    class Net(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    task = DenoisingTask(lambda *_: Net(), 1, SGD, sigma=(51, 51))
    loss = task.training_step({"image": torch.full((8, 1, 64, 64), 0.5)}, 0)
    assert float(loss) == pytest.approx(0.2 * (2 / np.pi) ** 0.5, rel=0.05)  # the mean of |x|: nothing was taken away
    assert float(seen[0].std()) == pytest.approx(0.2, rel=0.05)
    with pytest.raises(UserError, match="no range"):
        DenoisingTask(DnCNN, 1, SGD, sigma=(30, 20))


def test_luma_and_lab_are_those_of_the_library():
    picture = torch.rand(1, 3, 9, 11)
    pixels = picture[0].permute(1, 2, 0).double().numpy()
    np.testing.assert_allclose(luma(picture)[0, 0].numpy(), rgb2ycbcr(pixels)[..., 0] / 255, atol=1e-5)
    lightness, colours = split_lab(picture)
    lab = rgb2lab(pixels)
    np.testing.assert_allclose(lightness[0, 0].numpy(), lab[..., 0] / 100, atol=1e-3)
    np.testing.assert_allclose(colours[0].permute(1, 2, 0).numpy(), lab[..., 1:] / 110, atol=1e-3)
    np.testing.assert_allclose(join_lab(lightness, colours)[0].permute(1, 2, 0).numpy(), lab2rgb(lab), atol=2e-3)


def test_a_grey_picture_has_the_luma_of_the_same_picture_in_colour():
    grey = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(luma(grey), luma(grey.expand(-1, 3, -1, -1)))


def test_shrinking_is_pillows_antialiased_bicubic():
    plane = np.asarray(photo((40, 24), mode="L"), np.float32)
    expected = np.asarray(Image.fromarray(plane).resize((10, 6), Image.Resampling.BICUBIC)).clip(0, 255)
    np.testing.assert_allclose(
        resized(torch.from_numpy(plane)[None, None] / 255, 0.25)[0, 0] * 255, expected, atol=0.01
    )


def test_colourfulness_of_a_picture_of_two_colours():
    picture = torch.zeros(1, 3, 2, 2)
    assert float(colourfulness(picture + 0.3)) == 0  # grey
    picture[:, 0, 0] = 1  # half red, half black: red - green 255 or 0, (red + green) / 2 - blue 127.5 or 0
    deviation, mean = np.hypot(127.5, 63.75), np.hypot(127.5, 63.75)
    assert float(colourfulness(picture)) == pytest.approx(deviation + 0.3 * mean, rel=1e-5)


def test_colour_bins_say_their_own_colours():
    task = ColorizationTask(partial(ColorNet, width=2), 3, SGD, loss="bins")
    centre = task.bins[[5, 40]][:, :, None, None]  # (2, 2, 1, 1)
    shares = task._shares(centre)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 1, 1))
    assert shares.argmax(1).flatten().tolist() == [5, 40]
    likely = torch.nn.functional.one_hot(torch.tensor([5, 40]), len(task.bins)).float()[:, :, None, None] * 50
    task.net.forward = lambda _: likely
    torch.testing.assert_close(task(torch.rand(2, 1, 1, 1)), centre)
    assert float(task._loss(likely, centre)) < float(task._loss(likely.flip(0), centre))


def test_colours_cannot_be_learned_from_grey_pictures():
    with pytest.raises(UserError, match="grey"):
        ColorizationTask(ColorNet, 1, SGD)


def test_classes_teach_the_net_what_the_whole_picture_shows():
    task = ColorizationTask(partial(ColorNet, width=2), 3, SGD, num_classes=4, class_weight=1.0)
    task.training_step({"image": torch.rand(2, 3, 32, 32), "label": torch.tensor([0, 3])}, 0).backward()
    assert task.class_head is not None and task.class_head.weight.grad is not None
    assert task.net.low[0][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_super_resolution_starts_as_bicubic_and_cuts_what_the_scale_does_not_divide(scale):
    task = SuperResolutionTask(partial(SRResNet, width=4, depth=2), 3, SGD, scale=scale).eval()
    large, small = task._pair(torch.rand(1, 3, 25, 31))
    assert large.shape[2] % scale == large.shape[3] % scale == 0
    torch.testing.assert_close(task(small).clamp(0, 1), resized(small, scale), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="too small"):
        task._pair(torch.rand(1, 3, 1, 9))


@pytest.mark.parametrize("net, scale", [(DnCNN(3, 3, width=8), 1), (SRResNet(3, 3, 2, width=4, depth=8), 2)])
def test_tiles_leave_no_seam(net, scale):
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    image = torch.rand(1, 3, SIDE + OVERLAP + 37, 2 * SIDE + 1)
    with torch.no_grad():
        tiled, whole = in_tiles(net, image, scale), net(image)[0].clamp(0, 1).mul(255).movedim(0, -1)
    assert tiled.shape == (scale * image.shape[2], scale * image.shape[3], 3)
    assert float((tiled - whole).abs().max()) < 0.501  # rounded to bytes, no more


def test_windows_are_squares_of_the_training_photos(tmp_path):
    write_photos(tmp_path)
    photo((20, 90), 99).save(tmp_path / "narrow.png")  # smaller than a window
    data = PhotoFolderDataModule(str(tmp_path), crop=40, windows=30, batch_size=8)
    data.prepare_data()
    loader = data.train_dataloader()
    batch = next(iter(loader))
    assert batch["image"].shape == (8, 3, 40, 40) and batch["image"].dtype == torch.uint8 and len(loader) == 3
    again = loader.dataset.__getitems__([7, 8])
    assert torch.equal(again["image"], loader.dataset.__getitems__([7, 8])["image"])
    assert not torch.equal(again["image"], loader.dataset.__getitems__([37, 38])["image"])  # another epoch
    assert {batch["image"].shape[1:] for batch in data.test_dataloader()} <= {(3, 50, 60 + i) for i in range(12)} | {
        (3, 90, 20)
    }


def test_sample_photos_never_lie_on_two_sides():
    data = SamplePhotosDataModule(max_side=64)
    parts = {part: {n for n, p in zip(data.store.names, data.store.parts, strict=True) if p == part} for part in PARTS}
    assert parts["val"] == {"coffee", "flower"} and parts["test"] == {"china", "retina"} and len(parts["train"]) == 6
    regions = SamplePhotosDataModule(split="regions", max_side=256).store
    assert len(set(regions.names)) == len(regions.names) and {(128, 128)} == set(regions.sizes)
    assert regions.parts.count("val") == regions.parts.count("test") == 10


PARTS = ("train", "val", "test")


@pytest.mark.parametrize("saved", ["L", "RGB"])
def test_photos_without_colours_have_one_channel_however_they_are_saved(tmp_path, saved):
    write_photos(tmp_path, mode="L")
    for path in tmp_path.iterdir():
        Image.open(path).convert(saved).save(path)
    assert PhotoFolderDataModule(str(tmp_path)).in_channels == 1


def test_a_few_broken_photos_are_named_and_many_are_refused(tmp_path):
    write_photos(tmp_path, count=24)
    (tmp_path / "00.png").write_bytes(b"")
    data = PhotoFolderDataModule(str(tmp_path))
    assert "skipped 1 broken: 00.png (empty file)" in str(data)
    for i in range(24):
        (tmp_path / f"{i:02d}.png").write_bytes((tmp_path / "01.png").read_bytes()[:50])
    with pytest.raises(UserError, match="24 of 24"):
        PhotoFolderDataModule(str(tmp_path)).prepare_data()


def test_any_picture_can_be_restored(tmp_path):
    photo((30, 20), mode="CMYK").save(tmp_path / "cmyk.tif")
    photo((30, 20), mode="L").save(tmp_path / "grey.png")
    deep = (np.asarray(photo((30, 20), mode="L"), np.uint16) * 257 // 2).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    clear = photo((30, 20))
    clear.putalpha(Image.linear_gradient("L").resize((30, 20)))
    clear.save(tmp_path / "clear.png")
    photo((30, 20)).save(tmp_path / "moving.gif", save_all=True, append_images=[photo((30, 20), 1)])
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    photo((30, 20)).save(tmp_path / "turned.jpg", exif=turned)
    data = PhotosToRestore(sorted(tmp_path.iterdir()), channels=3)
    samples = {Path(sample["path"]).stem: sample for sample in (data[i] for i in range(len(data)))}
    assert len(samples) == 6
    for name, sample in samples.items():
        assert sample["image"].shape == ((3, 30, 20) if name == "turned" else (3, 20, 30)), name
    assert samples["clear"]["alpha"].shape == (1, 20, 30) and "alpha" not in samples["grey"]
    grey, half = samples["grey"]["image"], samples["deep"]["image"]
    torch.testing.assert_close(half, grey / 2, atol=0.005, rtol=0)  # not stretched


def test_predictions_keep_size_transparency_and_orientation(tmp_path, tasklight):
    flags = ["--model.net.width", "4", "--data.windows", "16", "--data.max_side", "48", "--trainer.max_epochs", "1"]
    assert (
        tasklight("fit", "--config", str(ROOT / "configs/srresnet.yaml"), *flags, "--trainer.logger", "false")[0] == 0
    )
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    clear = photo((30, 20))
    clear.putalpha(Image.linear_gradient("L").resize((30, 20)))
    clear.save(inputs / "clear.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo((30, 20)).save(inputs / "turned.jpg", exif=turned)
    assert tasklight("predict", "--config", str(ROOT / "configs/srresnet.yaml"), "--input", str(inputs))[0] == 0
    folder = Path("runs/srresnet/0/predictions")
    enlarged = Image.open(folder / "clear_enlarged.png")
    assert enlarged.size == (120, 80) and enlarged.mode == "RGBA"
    assert Image.open(folder / "turned_enlarged.png").size == (80, 120)
    assert (folder / "index.html").read_text().count('type="range"') == 2


def test_the_sets_of_the_literature_are_found_in_the_layouts_of_their_downloads(tmp_path):
    for place in ("BSR/BSDS500/data/images/train", "bsds500/test", "T91", "Set12"):
        write_photos(tmp_path / place, count=6)
    data = RestorationSetsDataModule(["BSDS500", "T91"], "Set12", str(tmp_path))
    data.prepare_data()
    assert data.in_channels == 1  # of Set12 there are no colours
    assert data.store.parts.count("test") == 6 and data.store.parts.count("val") > 0
    with pytest.raises(UserError, match="Set5 is not in"):
        RestorationSetsDataModule(["T91"], "Set5", str(tmp_path)).prepare_data()
    with pytest.raises(UserError, match="no photo set 'Set6'"):
        RestorationSetsDataModule(["T91"], "Set6", str(tmp_path)).prepare_data()


def test_grey_folders_are_refused_for_colorization(tmp_path, tasklight):
    write_photos(tmp_path / "grey", mode="L")
    argv = ["fit", "--config", str(ROOT / "configs/colorization.yaml"), "--data", FOLDER]
    code, _, err = tasklight(*argv, "--data.root", str(tmp_path / "grey"))
    assert code == 2 and "grey" in one_line(err)
    assert not Path("runs").exists()


def test_digits_are_read_before_and_after(tasklight):
    flags = [
        "--model.net.width",
        "4",
        "--data.num_train",
        "200",
        "--trainer.max_epochs",
        "1",
        "--trainer.logger",
        "false",
    ]
    assert tasklight("fit", "--config", str(ROOT / "configs/denoising_autoencoder.yaml"), *flags)[0] == 0
    metrics = json.loads(Path("runs/denoising_autoencoder/0/summary.json").read_text())["metrics"]
    assert metrics["test/accuracy_clean"] > 0.8 > metrics["test/accuracy_noisy"]
