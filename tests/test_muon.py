"""Muon: what it does to matrices, to everything else, and what it is spared."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from engine.muon import Muon, orthogonal
from engine.schedules import parameter_groups


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_a_matrix_keeps_its_singular_vectors_and_loses_its_values(shape: tuple[int, int]) -> None:
    left, right = (torch.linalg.qr(torch.randn(size, min(shape)))[0] for size in shape)
    values = torch.logspace(0, -1, min(shape))
    turned = left.T @ orthogonal(left * values @ right.T) @ right
    assert (turned - torch.diag(turned.diag())).abs().max() < 1e-4
    assert turned.diag().min() > 0.6 and turned.diag().max() < 1.3


def test_matrices_move_as_by_pytorchs_muon() -> None:
    ours, theirs = nn.Linear(12, 30, bias=False), nn.Linear(12, 30, bias=False)
    theirs.load_state_dict(ours.state_dict())
    before = ours.weight.detach().clone()
    muon = Muon(ours.parameters(), lr=0.01, weight_decay=0.1)
    reference = torch.optim.Muon(theirs.parameters(), lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        gradient = torch.randn(30, 12, generator=torch.Generator().manual_seed(step))
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        muon.step()
        reference.step()
    moved = (theirs.weight - before).norm()
    assert (ours.weight - theirs.weight).norm() < 0.02 * moved  # theirs iterates in bfloat16


def test_a_step_is_as_large_as_adamws() -> None:
    weight = nn.Parameter(torch.zeros(64, 256))
    weight.grad = torch.randn(64, 256)
    Muon([weight], lr=0.01).step()
    assert 0.14 < weight.square().mean().sqrt() / 0.01 < 0.26  # 0.2, give or take what five iterations leave


def test_all_but_matrices_move_as_by_adamw() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 5))
    twin = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 5))
    twin.load_state_dict(net.state_dict())
    optimizers = [
        Muon(parameter_groups(net), lr=0.01, weight_decay=0.1),
        AdamW(parameter_groups(twin), 0.01, (0.9, 0.99), weight_decay=0.1),
    ]
    for _ in range(3):
        for model, optimizer in zip((net, twin), optimizers, strict=True):
            generator = torch.Generator().manual_seed(1)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    same = {name: torch.equal(value, twin.get_parameter(name)) for name, value in net.named_parameters()}
    assert {name for name, equal in same.items() if not equal} == {"1.weight", "3.weight"}


def test_weight_decay_spares_all_but_matrices_and_muon_embeddings() -> None:
    net = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.Linear(8, 5, bias=False))
    net[2].weight = net[0].weight  # tied
    groups = parameter_groups(net)
    assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [[(8, 8)], [(5, 8)], [(8,)]]
    optimizer = Muon(groups, weight_decay=0.1)
    assert [(group["muon"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (True, 0.1), (False, 0.1), (True, 0.0)
    ]  # fmt: skip


def test_a_training_goes_on_as_if_never_interrupted() -> None:
    torch.manual_seed(0)
    target = torch.randn(16, 4)

    def run(steps: int, state: dict | None = None) -> tuple[nn.Module, dict]:
        torch.manual_seed(1)
        net = nn.Linear(8, 4)
        muon = Muon(net.parameters(), lr=0.05)
        if state:
            net.load_state_dict(state["net"])
            muon.load_state_dict(state["muon"])
        for step in range(steps):
            x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step + (3 if state else 0)))
            muon.zero_grad()
            muon.step(lambda x=x: closure(net, x))
        return net, {"net": net.state_dict(), "muon": muon.state_dict()}

    def closure(net: nn.Module, x: torch.Tensor) -> float:
        loss = (net(x) - target).square().mean()
        loss.backward()
        return loss.item()

    whole, _ = run(6)
    _, half = run(3)
    resumed, _ = run(3, half)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert all(p.isfinite().all() for p in whole.parameters())
