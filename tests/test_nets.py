"""Every network: the documented shapes at a size that is not square, and what must hold of any network."""

import pytest
import torch
from torch import nn

from nets.foreign import SMPNet
from nets.mlp import MLP, MLPEnsemble
from nets.unet import UNet

NETS = {
    "ensemble of MLPs": (lambda: MLPEnsemble(5, 2, members=3), (4, 5), (4, 3, 2)),
    "unet": (lambda: UNet(1, 3, width=4, depth=2), (2, 1, 17, 30), (2, 3, 17, 30)),
    "unet with patches": (lambda: UNet(3, 11, width=4, depth=2, patch=2), (2, 3, 21, 9), (2, 11, 21, 9)),
    "unet, smaller than its deepest scale": (lambda: UNet(3, 2, width=2, depth=4), (2, 3, 5, 3), (2, 2, 5, 3)),
    "smp": (lambda: SMPNet(1, 2), (2, 1, 40, 70), (2, 2, 40, 70)),
}


@pytest.mark.parametrize("name", NETS)
def test_shape_gradients_and_independence(name):
    build, shape_in, shape_out = NETS[name]
    net: nn.Module = build()
    x = torch.randn(shape_in)
    y = net(x)
    assert y.shape == shape_out
    y.square().sum().backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(net(x)[:1], net(x[:1]), atol=1e-4, rtol=1e-4)


def test_width_and_depth_scale_the_unet():
    def count(width: int, depth: int) -> int:
        return sum(parameter.numel() for parameter in UNet(3, 2, width, depth).parameters())

    assert count(16, 2) > 3.5 * count(8, 2)
    assert count(8, 3) > 3 * count(8, 2)
    assert count(64, 4) == pytest.approx(31e6, rel=0.01)  # the paper's net


def test_an_ensemble_answers_with_the_mean_of_mlps_of_its_own_kind():
    torch.manual_seed(0)
    net, x = MLPEnsemble(3, 2, members=4, hidden=(8, 5)), torch.randn(6, 3)
    answers = []
    for member in range(4):
        single = MLP(3, 2, hidden=(8, 5))
        linear = [layer for layer in single.layers if isinstance(layer, nn.Linear)]
        for layer, weight, bias in zip(linear, net.weights, net.biases, strict=True):
            layer.weight.data, layer.bias.data = weight[member].T.clone(), bias[member, 0].clone()
        answers.append(single(x))
    torch.testing.assert_close(net(x), torch.stack(answers, dim=1))
    torch.testing.assert_close(net.eval()(x), torch.stack(answers).mean(0))
