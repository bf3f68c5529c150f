"""What ``check`` finds out about data, whatever they are, by a look at all samples; data modules add what they know."""

from inspect import signature
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from engine.arguments import read_yaml
from engine.check_leaks import judge_leaks
from engine.check_page import Report
from engine.check_parts import PARTS, Part, batches, class_names, look_at, same_on_purpose
from engine.check_pictures import class_counts, draw
from engine.errors import Finding, UserError, fault, gathering, note
from engine.recipes import recipes

FEW = 10  # training samples of a class that are too few
IMBALANCE = 20  # how many times more samples than the rarest the most frequent class may have

# Fields of a batch, what is asked of them, and the recipes that learn it; the first whose fields are all there counts.
KINDS = (
    (("image", "mask"), "classification of pixels, a class for each", ("unet",)),
    (("image", "length"), "classification of characters, the text in a picture", ("captcha_crnn",)),
    (
        ("image", "label"),
        "classification, a class for every picture",
        ("mlp", "cnn", "vgg", "resnet", "vit", "data_free"),
    ),
    (
        ("image",),
        "neither: pictures as they are",
        ("dncnn", "denoising_autoencoder", "colorization", "srresnet", "srgan", "dcgan", "wgan_gp"),
    ),
    (("features", "label"), "classification, a class for every row", ("xor",)),
    (("features", "target"), "regression, a number for every row", ("housing",)),
    (("series", "target"), "regression in time, the numbers that follow", ("stock_linear", "stock_rnn")),
    (("source", "target"), "neither: a translation for every sentence", ("transformer", "translation_attention")),
    (("tokens", "label"), "classification, a class for every text", ("bert_classifier",)),
    (("tokens",), "classification of tokens, those that follow or are missing", ("gpt", "text_lstm", "bert")),
)
# Settings by which data modules and tasks change training samples at random.
AUGMENTATIONS = ("degrees", "scale", "shift", "flip", "turn", "cutout", "mixup", "cutmix", "augment", "dropout")


def examine(
    report: Report, trainer: Trainer, task: LightningModule | None, data: Any, class_path: str, misfit: str
) -> None:
    """Look at data from all sides.

    Args:
        report: Where to put what is found.
        trainer: The trainer.
        task: The task, or None if it cannot be made for these data.
        data: The data module.
        class_path: The task's class.
        misfit: Why it cannot be made.

    Raises:
        UserError: The data cannot be read, and nothing is known of them.
    """
    with gathering() as found:
        try:
            data.prepare_data()
            if hasattr(data, "examine"):
                report.lines |= {title: said for title, said in data.examine().items() if said}
            parts = {part: look_at(data, part) for part in PARTS}
            fields = parts["train"].fields.keys() | parts["test"].fields.keys()
            fields |= {"label"} if any(part.labels for part in parts.values()) and class_names(data) else set()
            fields |= {"mask"} if any(part.pixels.any() for part in parts.values()) else set()
            fields |= {"length"} if hasattr(data, "charset") else set()
            fits = judge_task(report, fields, class_path, misfit)
            describe(report, data, parts)
            judge_balance(report, data, parts)
            judge_amount(report, data, parts, task)
            judge_scale(report, trainer, task if fits else None, data, parts)
            judge_net(report, task, fields)
            judge_leaks(report, data, parts)
            draw(report, trainer, data, parts)
        except UserError as error:  # it goes no further
            if not found and not report.findings:
                raise
            found.append(Finding(True, error.words, error.places))
        except Exception as error:
            if not any(finding.broken for finding in [*found, *report.findings]):
                raise
            found.append(Finding(False, f"what is broken leaves too little to look further: {error!r}"))
    report.add(found)


def judge_task(report: Report, fields: set[str], class_path: str, misfit: str) -> bool:
    """Say what is asked of the data, and by which recipes; return whether the task is known to learn from them."""
    known = {path.stem: read_yaml(path)["model"]["class_path"] for path in recipes()}
    kinds = [(asked, names) for wanted, asked, names in KINDS if fields.issuperset(wanted)]
    if not kinds:
        return False
    (asked, fitting), all_names = kinds[0], [name for _, names in kinds for name in names]
    listed = ", ".join(f"configs/{name}.yaml" for name in fitting)
    report.answers["regression or classification?"] = f"{asked}; it fits {listed}"
    task = class_path.rsplit(".", 1)[-1]
    fits = class_path in [known[name] for name in all_names]
    if misfit:
        fault(f"{task} cannot learn from these data: {misfit}; {listed} would ask for {asked}")
    elif class_path in known.values() and not fits:  # of a task of the user's own nothing is known
        fault(f"{task} cannot learn from batches of {', '.join(sorted(fields))}; {listed} would ask for {asked}")
    return fits


def describe(report: Report, data: Any, parts: dict[str, Part]) -> None:
    """Say what there is: counts, shapes, types, ranges."""
    counts = " / ".join(f"{len(part.names):,} {name}" for name, part in parts.items())
    report.answers["how many?"] = f"{counts} samples"
    for name, values in parts["train"].fields.items():
        if name != "time":
            report.answers[f"what is {name}?"] = str(values)
    bad = [name for part in parts.values() for name in part.not_finite]
    if bad:
        fault(f"{len(bad)} sample(s) hold NaN or infinity", bad)
    lengths = parts["train"].lengths
    if lengths:
        report.answers["how long are texts?"] = f"{min(lengths):,} to {max(lengths):,} characters"
    plain = [
        name
        for part in parts.values()
        for name, tiny in zip(part.names, torch.cat(part.prints) if part.prints else [], strict=False)
        if not tiny.any()
    ]
    if plain and any(part.labels for part in parts.values()):  # windows of photos may be plain
        note(f"{len(plain)} picture(s) show nothing, all of their pixels are the same or nearly so", plain)


def judge_balance(report: Report, data: Any, parts: dict[str, Part]) -> None:
    """Count samples, or pixels, of every class, and say which weights would balance them."""
    names, train = class_names(data), parts["train"]
    if not names:
        return
    masks = bool(train.pixels.any())
    counts = (train.pixels if masks else np.bincount(train.labels, minlength=len(names)))[: len(names)]
    if not counts.any():
        return
    weights = counts.sum() / (len(names) * np.maximum(counts, 1))
    rows = [f"{name}: {count:,}" for name, count in zip(names, counts, strict=True)]
    weighed = [f"{row}, weight {weight:.3g}" for row, weight in zip(rows, weights, strict=True)]
    report.lines["training pixels of every class" if masks else "training samples of every class"] = weighed
    most, least = int(counts.argmax()), int(counts.argmin())
    share = f"{counts[most] / counts.sum():.1%} {names[most]}, {counts[least] / counts.sum():.1%} {names[least]}"
    told = " ".join(f"{weight:.3g}" for weight in weights[:12]) + (" ..." if len(names) > 12 else "")
    report.answers["are classes balanced?"] = f"{share}; weights that would balance them: {told}"
    if not masks and counts[most] > IMBALANCE * max(1, counts[least]):
        note(
            f"classes are out of balance, {counts[most]:,} samples of {names[most]!r} and {counts[least]:,} of "
            f"{names[least]!r}; gather more, or weigh the loss by {told}"
        )
    report.pictures["classes of the training part"] = class_counts(dict(zip(names, counts.tolist(), strict=True)))


def judge_amount(report: Report, data: Any, parts: dict[str, Part], task: LightningModule | None) -> None:
    """Set the number of samples against the number of parameters, and name what changes samples at random."""
    count, names = len(parts["train"].names), class_names(data)
    said = f"{count:,} training samples"
    if parts["train"].labels and names:
        counts = np.bincount(parts["train"].labels, minlength=len(names))
        said += f", {counts.min():,} to {counts.max():,} of a class"
        few = [f"{name} ({n})" for name, n in zip(names, counts.tolist(), strict=True) if 0 < n < FEW]
        if few and not same_on_purpose(data):
            note(f"{len(few)} class(es) have fewer than {FEW} training samples", few)
    if task:
        parameters = sum(parameter.numel() for parameter in task.parameters())
        each = parameters / max(1, count)
        said += f"; the net has {parameters:,} parameters, {each:,.{0 if each >= 10 else 2}f} for a sample"
    report.answers["enough data?"] = said
    offers = []
    for prefix, thing in (("data", data), ("model", task)):
        settings = task.hparams if thing is task and task else vars(data)
        for name in AUGMENTATIONS:
            if thing is not None and name in signature(type(thing)).parameters and name in settings:
                offers.append(f"--{prefix}.{name} {str(settings[name]).lower()}")
    report.answers["random changes"] = ", ".join(offers) or "none on offer"


def judge_scale(
    report: Report, trainer: Trainer, task: LightningModule | None, data: Any, parts: dict[str, Part]
) -> None:
    """Measure what enters the net, if the task's ``forward`` can be fed with a batch."""
    name = next((name for name in ("image", "features", "series") if name in parts["train"].fields), None)
    if not name:
        report.answers["normalized?"] = "tokens are numbers of words or characters; the net learns a vector for each"
        return
    stored = parts["train"].fields[name]
    said = f"{stored.low:.4g} to {stored.high:.4g} as stored"
    fed = None
    if task:
        try:
            fed = entering(trainer, task, data)
        except UserError as error:  # the net does not suit the data
            fault(error.words, error.places)
    if fed is not None:
        deviation, mean = (float(value) for value in torch.std_mean(fed.float()))
        low, high = float(fed.min()), float(fed.max())
        said += f"; the net gets {low:.3g} to {high:.3g}, mean {mean:.3g}, std {deviation:.3g}"
        if not 0.02 < deviation < 20 or abs(mean) > 20:
            note(f"what the net gets is not normalized: mean {mean:.3g}, std {deviation:.3g}")
    elif "image" in parts["train"].fields:
        said += "; the task gets 0 to 1"
    report.answers["normalized?"] = said


def entering(trainer: Any, task: LightningModule, data: LightningDataModule) -> Tensor | None:
    """Return what the first training samples are when they enter the net; None if the task cannot be asked."""
    batch = next((batch for _, batch in batches(data, "train")), {})
    batch = data.on_after_batch_transfer(dict(batch), 0) if "image" in batch else batch
    batch["images"] = batch["noisy"] = batch.get("image")
    batch["inputs"] = batch.get("image", batch.get("features"))
    wanted = signature(task.forward).parameters
    if any(not isinstance(batch.get(name), Tensor) for name in wanted):
        return None
    task.trainer, trainer.datamodule = trainer, data
    task.setup("fit")
    task.eval()
    caught: list[Tensor] = []
    net: Any = task.net
    hook = net.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        task(*(batch[name] for name in wanted))
    hook.remove()
    return caught[0] if caught and caught[0].is_floating_point() else None


def judge_net(report: Report, task: LightningModule | None, fields: set[str]) -> None:
    """Say whether the net knows that pixels have neighbours, or that moments follow each other."""
    if not task or not isinstance(task.net, nn.Module):
        return
    kinds = {type(module).__name__ for module in task.net.modules() if module is not task.net}
    sees = [word for word in ("Conv", "Attention", "LSTM", "GRU", "RNN") if any(word in kind for kind in kinds)]
    net = type(task.net).__name__
    if sees:
        report.answers["does the net suit the structure?"] = f"{net} has {', '.join(sees)}"
    elif "image" in fields:
        words = f"{net} reads pixels in no order and ignores which are neighbours; a convolutional net would not: "
        report.answers["does the net suit the structure?"] = f"{words}configs/cnn.yaml"
    elif "series" in fields:
        words = f"{net} has a weight of its own for every step of the past and no recurrence"
        report.answers["does the net suit the structure?"] = f"{words}; configs/stock_rnn.yaml has"
    else:
        report.answers["does the net suit the structure?"] = f"{net}; rows of numbers have no order to be used"
