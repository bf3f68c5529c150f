"""Exports: what programs can rely on, and what is refused; ``test_promise.py`` proves it for every recipe."""

import ast
import json
import shutil
import sys
from pathlib import Path

import consumers
import numpy as np
import onnxruntime
import pytest
import torch
from conftest import ROOT
from lightning import LightningModule
from recipes import RECIPES
from test_engine import one_line
from torch import nn

import engine.export
from engine.errors import UserError
from engine.recipes import recipes
from engine.recurrent import exportable

PROGRAMS = consumers.programs()
XOR = ["--config", str(ROOT / "configs" / "xor.yaml")]


@pytest.fixture
def trained(tasklight, tmp_path_factory) -> Path:
    """Return the folder of a run, which is trained once."""
    kept = tmp_path_factory.getbasetemp() / "trained"
    if not kept.exists():
        flags = [*RECIPES["xor"].small, "--trainer.max_epochs", "1", "--trainer.logger", "false"]
        assert tasklight("fit", *XOR, *flags, "--trainer.accelerator", "cpu")[0] == 0
        shutil.copytree("runs", kept)
    shutil.copytree(kept, "runs", dirs_exist_ok=True)
    return Path("runs/xor/0")


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_need_no_pytorch(name):
    imported = set()
    for node in ast.walk(ast.parse(PROGRAMS[name])):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            imported |= {module.split(".")[0] for module in names}
    helpers = {"pictures", "tokens"}
    assert imported <= {*sys.stdlib_module_names, "numpy", "onnxruntime", "PIL", *helpers}
    assert {f"{helper}.py" for helper in imported & helpers} <= PROGRAMS.keys()


def test_every_recipe_has_a_program():
    used = {consumers.program_of(path.stem) for path in recipes()}
    assert used == PROGRAMS.keys() - {"pictures.py", "tokens.py"}


class Recurrent(nn.Module):
    """One recurrent net behind the other, of every kind; the last starts from a state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 4, batch_first=True)
        self.gru = nn.GRU(4, 5, num_layers=2, bidirectional=True)
        self.lstm = nn.LSTM(10, 6, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, start = inputs
        x, _ = self.rnn(x)
        x, last = self.gru(x.transpose(0, 1))
        x, (hidden, cell) = self.lstm(x.transpose(0, 1), (start, start + 1))
        ends = torch.cat([last, hidden, cell], dim=2).sum((0, 2))
        return x * ends[:, None, None] * torch.arange(x.shape[1])[:, None]


def test_recurrent_layers_read_any_length():
    torch.manual_seed(0)
    net = Recurrent().eval()
    example = {"x": ("BTC", torch.randn(2, 6, 3)), "start": ("CBD", torch.randn(4, 2, 6))}
    model = engine.export.translated(exportable(net), example, "BT")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for batch, length in ((1, 1), (3, 17)):
        inputs = torch.randn(batch, length, 3), torch.randn(4, batch, 6)
        (answer,) = session.run(None, dict(zip(("x", "start"), map(torch.Tensor.numpy, inputs), strict=True)))
        np.testing.assert_allclose(answer, net(*inputs).detach().numpy(), atol=1e-4)
    assert isinstance(net.gru, nn.GRU)  # the net itself is as it was


class Fixed(LightningModule):
    """A task whose net takes pictures of one size."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[2] != 8:
            raise ValueError("8 pixels, no more and no less")
        return image.sum(1)


def test_a_net_for_one_size_leaves_the_batch_open(tmp_path):
    content = engine.export.export(Fixed(), {"image": ("BCHW", torch.rand(2, 3, 8, 8))}, tmp_path / "export", {})
    assert content["inputs"][0]["shape"] == ["batch", 3, 8, 8]


class Undecided(nn.Module):
    """A net whose way depends on what it reads."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] if inputs[0].sum() > 0 else -inputs[0]


def test_a_net_that_cannot_be_exported_is_refused():
    with pytest.raises(UserError, match="PyTorch cannot write this net as ONNX"):
        engine.export.translated(Undecided(), {"x": ("BC", torch.zeros(2, 3))}, "B")


def test_an_export_that_answers_otherwise_is_refused(tasklight, trained, monkeypatch):
    (trained / "export").mkdir()
    (trained / "export" / "model.onnx").write_text("an earlier one")

    def damaged(module: nn.Module) -> nn.Module:
        copy = exportable(module)
        with torch.no_grad():
            copy.task.net.head.bias += 1e-3
        return copy

    monkeypatch.setattr(engine.export, "exportable", damaged)
    code, _, err = tasklight("export", *XOR)
    assert code == 2 and "largest error" in one_line(err)
    assert (trained / "export" / "model.onnx").read_text() == "an earlier one"
    assert {path.name for path in trained.iterdir() if "export" in path.name} == {"export"}


def test_a_loose_checkpoint_is_exported_beside_itself(tasklight, trained):
    shutil.copy(trained / "checkpoints" / "best.ckpt", "loose.ckpt")
    code, _, err = tasklight("export", *XOR, *RECIPES["xor"].small[:2], "--ckpt_path", "loose.ckpt")
    assert code == 0, err
    assert json.loads(Path("loose_export/model.json").read_text())["class_names"] == ["false", "true"]


def test_what_cannot_be_exported_is_refused_in_one_line(tasklight, trained):
    shutil.copy(trained / "checkpoints" / "best.ckpt", "loose.ckpt")
    housing, unet = (["--config", str(ROOT / "configs" / f"{name}.yaml")] for name in ("housing", "unet"))
    for flags, words in (
        ([], "needs a recipe"),
        (unet, "no run of 'unet' has a checkpoint"),
        (["--ckpt_path", "runs/xor/7"], "does not exist"),
        (["--ckpt_path", "loose.ckpt"], "give its recipe by --config"),
        ([*housing, "--ckpt_path", str(trained)], "is of the recipe xor, not housing"),
        (
            [*housing, "--ckpt_path", "loose.ckpt"],
            "is of tasks.classification.ClassificationTask, not tasks.regression",
        ),
    ):
        code, _, err = tasklight("export", *flags)
        assert code == 2 and words in one_line(err)
    assert not list(Path().rglob("*.onnx"))
