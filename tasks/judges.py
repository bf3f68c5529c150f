"""Nets that know pictures by heart enough to judge others: taught on the spot, once for every data set, and kept."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from engine.cache import cached

TURNS = 4  # quarter turns: what a net tells apart where pictures have no classes
BATCH, MOST_PASSES = 64, 10  # pictures in a batch, and how often it sees each at most
WINDOWS = (8192, 32)  # how many windows of photos a net sees, and their side

Lesson = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # of pictures (B, C, H, W) in [0, 1] and their classes (B,)


def turned(pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Turn pictures (B, C, S, S) by quarters, and return how often each was turned (B,)."""
    parts = [pictures[turns::TURNS].rot90(turns, (2, 3)) for turns in range(TURNS)]
    counts = torch.tensor([len(part) for part in parts])
    return torch.cat(parts), torch.arange(TURNS).repeat_interleave(counts).to(pictures.device)


def pictures_of(datamodule: Any, part: str) -> tuple[Tensor, Tensor]:
    """Return all pictures of a part, uint8 (N, C, H, W), without random changes, and their classes (N,), or zeros."""
    dataset = datamodule.in_order(part).dataset  # of several devices each gets all
    rows = torch.arange(len(dataset)).split(200)
    batches = [datamodule.on_after_batch_transfer(dataset.__getitems__(some.tolist()), 0) for some in rows]
    pictures = torch.cat([(batch["image"] * 255).round().byte() for batch in batches])
    labels = torch.cat([batch.get("label", torch.zeros(len(batch["image"]), dtype=torch.long)) for batch in batches])
    return pictures, labels


def taught(
    make: Callable[[], nn.Module],
    datamodule: Any,
    num_classes: int,
    steps: int,
    device: torch.device,
    seed: int = 0,
    lesson: Lesson | None = None,
    windows: tuple[int, int] = WINDOWS,
) -> nn.Module:
    """Return a net that tells the classes of a data set's training pictures apart, frozen and ready to judge.

    It is the same on every call, so what it measures can be compared between trainings. Where there are no classes it
    tells how often a picture was turned by a quarter (Gidaris et al. 2018, https://arxiv.org/abs/1803.07728), or what
    another lesson asks. Photos are of many sizes: it sees windows of them, each a class of its own.

    Args:
        make: Builds the net, from pictures (B, C, H, W) in [0, 1] to logits.
        datamodule: Where the pictures come from.
        num_classes: Number of classes, below 2 if there are none.
        steps: Batches that it sees, fewer if there are few pictures.
        device: Where it is taught.
        seed: Where its weights start and which pictures it sees first.
        lesson: Changes pictures, and says what there is to tell.
        windows: How many windows of photos, and their side.
    """
    if hasattr(datamodule, "some_windows"):
        pictures, labels = datamodule.some_windows(*windows), torch.arange(windows[0])
    else:
        pictures, labels = pictures_of(datamodule, "train")
    if lesson is None:
        steps = min(steps, max(10, MOST_PASSES * len(pictures) // BATCH))
    if lesson is None and num_classes < 2:
        lesson = turned
    content = hashlib.sha256(pictures.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    with isolate_rng():  # whether it was taught now or earlier, the run draws the same numbers
        net = make()
    key = {"format": 2, "net": repr(net), "pictures": content, "classes": num_classes, "steps": steps, "seed": seed}
    key["lesson"] = lesson.__name__ if lesson else None

    def build(folder: Path) -> None:
        torch.manual_seed(seed)
        learner = make().to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(learner.parameters(), fused=True)
        schedule = OneCycleLR(optimizer, 5e-3, steps)
        for _ in track(range(steps), "teaching a net to judge", transient=True, disable=steps < 100):
            rows = torch.randint(len(pictures), (BATCH,))
            image, truth = pictures[rows].to(device) / 255, labels[rows].to(device)
            if lesson:
                image, truth = lesson(image, truth)
            loss = F.cross_entropy(learner(image), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        torch.save(learner.cpu().state_dict(), folder / "net.pt")

    net.load_state_dict(torch.load(cached("judges", key, build) / "net.pt", weights_only=True))
    return net.requires_grad_(False).eval()
