"""Every network: the documented shapes at a size that is not square, and what must hold of any network."""

import pytest
import torch
from torch import nn

from nets.foreign import SMPNet
from nets.nlinear import NLinear
from nets.rnn import RNN
from nets.unet import UNet


def unsettled(net: RNN) -> RNN:
    """Return a net whose head, zero at the start, has weights."""
    nn.init.ones_(net.head.weight)
    return net


NETS = {
    "unet": (lambda: UNet(1, 3, width=4, depth=2), (2, 1, 17, 30), (2, 3, 17, 30)),
    "unet with patches": (lambda: UNet(3, 11, width=4, depth=2, patch=2), (2, 3, 21, 9), (2, 11, 21, 9)),
    "unet, smaller than its deepest scale": (lambda: UNet(3, 2, width=2, depth=4), (2, 3, 5, 3), (2, 2, 5, 3)),
    "nlinear": (lambda: NLinear(3, 5, window=7), (2, 7, 3), (2, 5)),
    "nlinear, longer series": (lambda: NLinear(1, 2, window=4), (2, 9, 1), (2, 2)),
    "nlinear, shorter series": (lambda: NLinear(2, 2, window=9), (2, 4, 2), (2, 2)),
    "rnn": (lambda: unsettled(RNN(3, 5, "rnn", width=4, depth=2)), (2, 7, 3), (2, 5)),
    "lstm": (lambda: unsettled(RNN(3, 5, "lstm", width=4)), (2, 7, 3), (2, 5)),
    "gru": (lambda: unsettled(RNN(3, 5, "gru", width=4)), (2, 7, 3), (2, 5)),
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
