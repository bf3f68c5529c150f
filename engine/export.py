"""A trained net as an ONNX file, for programs that have neither PyTorch nor this project."""

import contextlib
import io
import logging
import math
import re
import shutil
import warnings
from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.export import Dim

from engine.contract import Example
from engine.errors import UserError
from engine.recurrent import exportable
from engine.runs import write_json

LARGEST_ERROR = 1e-4  # of an answer, as a share of the largest one where that is above 1
# Axes whose length an export leaves open, by their letters in CONTRIBUTING.md, and what ``model.json`` calls them.
FREE = {"B": "batch", "H": "height", "W": "width", "T": "length", "S": "source_length"}
OTHERS = ((1, 2, 1), (3, 1, -1))  # checked: inputs, how many times as long axes are, and by how much times their number


class Used(nn.Module):
    """What of a task is exported: the method that it names by ``exports``, else its ``forward``.

    Args:
        task: The task.
    """

    def __init__(self, task: LightningModule) -> None:
        super().__init__()
        self.task, self.method = task, getattr(task, "exports", "forward")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Do what the method does."""
        return getattr(self.task, self.method)(*inputs)


def export(task: LightningModule, example: Example, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write ``model.onnx``, check it against PyTorch in other shapes than it was traced in, and write ``model.json``.

    Args:
        task: The task with its trained weights, on the CPU.
        example: Two inputs such as it takes; those of the check are drawn from their values.
        folder: Where to write; an earlier export is replaced.
        facts: What else a program must know, as plain data.

    Returns:
        The content of ``model.json``.

    Raises:
        UserError: The answers differ from PyTorch's by more than ``LARGEST_ERROR``.
    """
    used = Used(task).eval()
    module, error = exportable(used), math.inf
    for free in ("".join(FREE), "B"):  # not every net takes pictures of any size
        if not error <= LARGEST_ERROR:
            model = translated(module, example, free)
            error = check(used, example, model)
    if not error <= LARGEST_ERROR:
        raise UserError(f"ONNX Runtime answers otherwise than PyTorch: the largest error is {error:.1e}")
    onnx.checker.check_model(model, full_check=True)
    content = {
        **facts,
        "does": (getdoc(getattr(task, used.method)) or "").partition("\n")[0],
        "inputs": [described(value) for value in model.graph.input],
        "outputs": [described(value) for value in model.graph.output],
        "opset": model.opset_import[0].version,
        "max_error": error,
    }
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    onnx.save(model, scratch / "model.onnx")
    write_json(scratch / "model.json", content)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return content


def translated(module: nn.Module, example: Example, free: str) -> onnx.ModelProto:
    """Return a module as an ONNX model whose ``free`` axes may have any length, but where the net is made for one.

    Raises:
        UserError: PyTorch's exporter does not know how.
    """
    open_axes = [{i: Dim.AUTO for i, axis in enumerate(axes) if axis in free} for axes, _ in example.values()]
    try:
        with silence():
            program = torch.onnx.export(
                module,
                tuple(value for _, value in example.values()),
                input_names=list(example),
                output_names=["output"],
                dynamic_shapes=(tuple(open_axes),),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise UserError(f"PyTorch cannot write this net as ONNX: {reason}") from error
    model = cast(Any, program).model_proto
    names: dict[str, str] = {}
    for value in model.graph.input:
        for axis, dim in zip(example[value.name][0], value.type.tensor_type.shape.dim, strict=True):
            if dim.dim_param:
                names.setdefault(dim.dim_param, FREE[axis])
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), dim.dim_param)
    return model


def check(module: nn.Module, example: Example, model: onnx.ModelProto) -> float:
    """Return how far the answers of an ONNX model are from a module's, in inputs of other shapes than the example's.

    Where the exporter has but a formula for an axis of the output, it gets the name of that of the inputs, if there is
    one, that turned out as long. An infinite error stands for no answer: one of both cannot do with the shapes.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is told by its error
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    generator = torch.Generator().manual_seed(0)
    errors, lengths, shapes = [], [], []
    for batch, times, longer in OTHERS:
        inputs: dict[str, Tensor] = {}
        named: dict[str, int] = {}
        for value in model.graph.input:
            like, shape = example[value.name][1], []
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                other = times * like.shape[axis] + longer * axis if axis else batch
                shape.append(named.setdefault(dim.dim_param, other) if dim.dim_param else dim.dim_value)
            inputs[value.name] = like.flatten()[torch.randint(like.numel(), shape, generator=generator)]
        try:
            with torch.inference_mode():
                wanted = module(*inputs.values()).numpy()
            (given,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        except Exception:  # of as many kinds as there are operators
            return math.inf
        errors.append(float(np.abs(given - wanted).max() / max(1.0, np.abs(wanted).max())))
        lengths.append(named)
        shapes.append(given.shape)
    for axis, dim in enumerate(model.graph.output[0].type.tensor_type.shape.dim):
        for name in lengths[0]:
            as_long = all(named[name] == shape[axis] for named, shape in zip(lengths, shapes, strict=True))
            if dim.dim_param and dim.dim_param not in FREE.values() and as_long:
                dim.dim_param = name
    return max(errors)


def described(value: onnx.ValueInfoProto) -> dict[str, Any]:
    """Return name, type and shape of an input or an output; an axis of any length is named."""
    tensor = value.type.tensor_type
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return {"name": value.name, "type": kind, "shape": [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the exporter's words on what it does to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
