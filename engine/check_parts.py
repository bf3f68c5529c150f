"""What a look at all samples of a part tells ``check``, whatever the samples are."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.errors import UserError

PARTS = ("train", "val", "test")
EXAMPLES = 8  # pictures in a row
MOST_SHOWN = 200  # samples of a part that are kept for that
KEPT = 20_000  # values of a field that histograms are drawn from
SIDE = 16  # of the pictures that near copies are found by
PLAIN = 2.0  # deviation, of 255, below which a picture is too plain to be compared
TENSORS = ("image", "features", "series", "past", "target", "time", "tokens", "source")  # fields to be described
CONTENT = ("image", "features", "text", "translation")  # by which samples are told to be the same


@dataclass
class Values:
    """What is known of a field after a look at all its values.

    Args:
        dtype: Type of its numbers.
        shapes: Shapes of samples, and how many have each.
        low: Smallest value.
        high: Largest value.
        count: Number of values.
        total: Their sum.
        squares: The sum of their squares.
        kept: Some of them, of rows whole ones.
    """

    dtype: str = ""
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    low: float = float("inf")
    high: float = float("-inf")
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    kept: list[np.ndarray] = field(default_factory=list)

    def add(self, values: Tensor, columns: bool) -> None:
        """Take samples (B, ...) into account; of columns the last axis is kept apart."""
        self.dtype = str(values.dtype).removeprefix("torch.")
        self.shapes[tuple(values.shape[1:])] += len(values)
        numbers = values.double()
        finite = numbers[numbers.isfinite()]
        if not len(finite):
            return
        self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
        self.count += len(finite)
        self.total, self.squares = self.total + float(finite.sum()), self.squares + float(finite.square().sum())
        if sum(map(len, self.kept)) < KEPT:
            rows = numbers.reshape(-1, numbers.shape[-1]) if columns else finite
            self.kept.append(rows[:: 1 + len(rows) // 2000].numpy())

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shapes.most_common(1)[0][0])) or "single numbers"
        others = f" and {len(self.shapes) - 1} other shapes" if len(self.shapes) > 1 else ""
        if self.dtype.startswith("int"):
            return f"{self.dtype}, {shape}{others}, {self.low:.0f} to {self.high:.0f}"
        mean = self.total / max(1, self.count)
        deviation = max(0.0, self.squares / max(1, self.count) - mean**2) ** 0.5
        return f"{self.dtype}, {shape}{others}, {self.low:.4g} to {self.high:.4g}, mean {mean:.4g}, std {deviation:.4g}"


@dataclass
class Part:
    """What is known of a part after a look at all its samples.

    Args:
        names: Where every sample is from.
        fields: What is known of every field.
        labels: Class of every sample that has one.
        pixels: Pixels of every class id, where samples have masks, (256,).
        digests: Hash of every sample's content.
        prints: Tiny grey versions of pictures, of mean 0 and length 1; zeros for plain ones (N, SIDE * SIDE).
        not_finite: Samples with values that are no numbers.
        times: Moments that are forecast.
        shown: The first samples, as the task gets them.
        lengths: Characters of all texts.
    """

    names: list[str] = field(default_factory=list)
    fields: dict[str, Values] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    digests: list[bytes] = field(default_factory=list)
    prints: list[Tensor] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    times: list[Tensor] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def look_at(data: Any, part: str) -> Part:
    """Look at all samples of a part once."""
    seen = Part()
    names = data.names(part) if hasattr(data, "names") else []
    for indices, batch in batches(data, part):
        size = len(indices)
        here = [names[i] if i < len(names) else f"{part} sample {i}" for i in indices]
        seen.names += here
        tensors = {name: values for name, values in batch.items() if isinstance(values, Tensor) and values.ndim}
        bad = torch.zeros(size, dtype=torch.bool)
        for name in TENSORS:
            if name in tensors and len(tensors[name]) == size:
                seen.fields.setdefault(name, Values()).add(tensors[name], name in ("features", "series"))
                if tensors[name].is_floating_point():
                    bad |= ~tensors[name].flatten(1).isfinite().all(1)
        seen.not_finite += [name for name, is_bad in zip(here, bad.tolist(), strict=True) if is_bad]
        if "label" in tensors:
            seen.labels += tensors["label"].tolist()
        if "mask" in tensors:
            seen.pixels += np.bincount(tensors["mask"].numpy().ravel(), minlength=256)
        if "time" in tensors:
            seen.times.append(tensors["time"])
        seen.lengths += map(len, batch.get("text", []))
        content = [batch[name] for name in CONTENT if name in batch]
        if content:
            seen.digests += [digest([values[i] for values in content]) for i in range(size)]
        if "image" in tensors:
            seen.prints.append(prints_of(tensors["image"]))
            keep_some(seen, data, batch, here)
    return seen


def batches(data: Any, part: str) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Yield the numbers of samples, and the samples, batch by batch."""
    loader = data.samples(part) if hasattr(data, "samples") else data.in_order(part)
    if len(loader.dataset):
        yield from zip(loader.batch_sampler, loader, strict=True)


def keep_some(part: Part, data: Any, batch: dict[str, Any], names: list[str]) -> None:
    """Keep the first samples to be shown, as the task gets them, and of every class as many."""
    counts = Counter(sample["label"] for sample in part.shown)
    wanted: list[tuple[int, int]] = []
    for i, label in enumerate(batch["label"].tolist() if "label" in batch else [0] * len(names)):
        if counts[label] < EXAMPLES and len(part.shown) + len(wanted) < MOST_SHOWN:
            wanted.append((i, label))
            counts[label] += 1
    if wanted:
        batch = data.on_after_batch_transfer(dict(batch), 0)
        kept = {name: batch[name] for name in ("image", "mask") if name in batch}
        part.shown += [
            {"name": names[i], "label": label, **{name: values[i] for name, values in kept.items()}}
            for i, label in wanted
        ]


def digest(content: list[Any]) -> bytes:
    """Return a hash of a sample's tensors and the words of its texts."""
    found = hashlib.blake2b(digest_size=16)
    for values in content:
        if isinstance(values, Tensor):
            found.update(str(tuple(values.shape)).encode())
            found.update(values.contiguous().numpy().tobytes())
        else:
            found.update((plain_words(str(values)) or str(values).strip()).encode())
    return found.digest()


def plain_words(text: str) -> str:
    """Return a text without what may differ in a copy of it: case, punctuation, more than one space."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def prints_of(images: Tensor) -> Tensor:
    """Return tiny grey versions of pictures uint8 (B, C, H, W), of mean 0 and length 1 (B, SIDE * SIDE)."""
    grey = images.float().mean(1, keepdim=True)
    tiny = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True).flatten(1)
    tiny = tiny - tiny.mean(1, keepdim=True)
    plain = tiny.square().mean(1, keepdim=True).sqrt() < PLAIN
    return F.normalize(tiny).where(~plain, 0)


def class_names(data: Any) -> list[str]:
    """Return the names of the classes, none if there are none."""
    try:
        return list(getattr(data, "class_names", []))
    except UserError:  # the target is a number
        return []


def same_on_purpose(data: Any) -> bool:
    """Tell whether a data module says that its parts are the same samples."""
    return getattr(data, "same_parts", False)
