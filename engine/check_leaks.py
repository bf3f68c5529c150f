"""What ``check`` asks of the parts together: whether what is held out was really held out."""

from typing import Any

import torch
from torch import Tensor

from engine.check_page import Report
from engine.check_parts import EXAMPLES, SIDE, Part, batches, class_names, same_on_purpose
from engine.check_pictures import pairs_grid
from engine.errors import fault, note

LEAK = 0.01  # share of a held-out part up to which samples of the training part in it are only worth a look
ALIKE = 0.998  # correlation of such pictures from which on they are taken for copies of each other


def judge_leaks(report: Report, data: Any, parts: dict[str, Part]) -> None:
    """Look for samples of the training part, or near copies of them, in the others, and for doubles within it."""
    if same_on_purpose(data):
        report.answers["leaks?"] = "all parts are the same samples, on purpose"
        return
    train = parts["train"]
    first = {found: i for i, found in reversed(list(enumerate(train.digests)))}
    for name in ("val", "test"):
        part = parts[name]
        same = [(i, first[found]) for i, found in enumerate(part.digests) if found in first]
        told = {i for i, _ in same}
        near = [pair for pair in near_copies(part, train) if pair[0] not in told]
        tell_leak(f"{name} sample(s) are in the training part too", part, train, same)
        tell_leak(f"{name} picture(s) are near copies of training pictures", part, train, near)
        if (same or near) and part.shown:
            report.pictures[f"{name} pictures that are, or resemble, training pictures"] = pairs_grid(
                [(picture_at(data, name, i), picture_at(data, "train", j)) for i, j in [*same, *near][:EXAMPLES]]
            )
        if part.times and train.times and torch.cat(part.times).min() <= torch.cat(train.times).max():
            fault(f"the {name} part begins before the training part ends: windows overlap")
    looked = [f"samples with the same content, by {len(train.digests):,} hashes"] if train.digests else []
    looked += [f"near copies, pictures that correlate by {ALIKE}, mirrored or not"] if train.prints else []
    looked += ["windows that overlap in time"] if train.times else []
    looked += report.lines.pop("leaks?", [])  # what the data module has looked for
    if looked:
        report.answers["leaks?"] = f"looked for {', '.join(looked)}"
    doubles = len(train.digests) - len(first)
    if doubles:
        report.answers["doubles"] = f"{doubles:,} training sample(s) are the same as another"
    if train.prints and train.labels and class_names(data):
        tell_torn(train)


def tell_torn(train: Part) -> None:
    """Tell which training samples are the same as one of another class."""
    classes: dict[bytes, set[int]] = {}
    for found, label in zip(train.digests, train.labels, strict=True):
        classes.setdefault(found, set()).add(label)
    torn = [name for name, found in zip(train.names, train.digests, strict=True) if len(classes[found]) > 1]
    if torn:
        note(f"{len(torn)} training samples are the same as others of another class", torn)


def tell_leak(words: str, part: Part, train: Part, pairs: list[tuple[int, int]]) -> None:
    """Tell which samples of a part are training samples, too."""
    if not pairs:
        return
    total, many = len(part.names), len(pairs) > LEAK * len(part.names)
    advice = "leave them out of one side, or the result flatters" if many else "few enough to go on"
    places = [f"{part.names[i]} = {train.names[j]}" for i, j in pairs]
    note(f"{len(pairs)} of {total:,} {words}; {advice}", places, broken=many)


def near_copies(part: Part, train: Part) -> list[tuple[int, int]]:
    """Return which pictures of a part resemble a training picture, or its mirror image, too closely, and which one."""
    if not part.prints or not train.prints:
        return []
    ours, theirs = torch.cat(part.prints), torch.cat(train.prints)
    mirrored = theirs.unflatten(1, (SIDE, SIDE)).flip(2).flatten(1)
    found = []
    for start in range(0, len(ours), 500):
        some = ours[start : start + 500]
        likeness, where = torch.maximum(some @ theirs.T, some @ mirrored.T).max(1)
        found += [(start + int(i), int(where[i])) for i in torch.nonzero(likeness > ALIKE)[:, 0]]
    return found


def picture_at(data: Any, part: str, place: int) -> Tensor:
    """Return the place-th picture of a part in the order in which it was looked at."""
    for indices, batch in batches(data, part):
        if place < len(indices):
            return data.on_after_batch_transfer(dict(batch), 0)["image"][place]
        place -= len(indices)
    raise IndexError(place)
