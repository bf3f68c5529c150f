"""Every network: the documented shapes at a size that is not square, and what must hold of any network."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from nets.airbench import Airbench
from nets.attention import SelfAttention
from nets.autoencoder import Autoencoder
from nets.cnn import CNN
from nets.colornet import ColorNet
from nets.crnn import CRNN
from nets.dcgan import Discriminator, Generator
from nets.dncnn import DnCNN
from nets.foreign import SMPNet, TimmNet, TorchvisionNet
from nets.mlp import MLP, MLPEnsemble, Perceptron
from nets.nlinear import NLinear
from nets.resnet import ResNet
from nets.rnn import RNN
from nets.srgan import Discriminator as SRGANDiscriminator
from nets.srresnet import SRResNet
from nets.unet import UNet
from nets.upsampling import UpsamplingGenerator
from nets.vgg import VGG
from nets.vit import ViT


def unsettled(net: RNN) -> RNN:
    """Return a net whose head, zero at the start, has weights."""
    nn.init.ones_(net.head.weight)
    return net


NETS = {
    "ensemble of MLPs": (lambda: MLPEnsemble(5, 2, members=3), (4, 5), (4, 3, 2)),
    "unet": (lambda: UNet(1, 3, width=4, depth=2), (2, 1, 17, 30), (2, 3, 17, 30)),
    "unet with patches": (lambda: UNet(3, 11, width=4, depth=2, patch=2), (2, 3, 21, 9), (2, 11, 21, 9)),
    "unet, smaller than its deepest scale": (lambda: UNet(3, 2, width=2, depth=4), (2, 3, 5, 3), (2, 2, 5, 3)),
    "perceptron": (lambda: Perceptron(5, 3), (2, 5), (2, 3)),
    "mlp on rows": (lambda: MLP(5, 3, hidden=[7]), (2, 5), (2, 3)),
    "mlp on pictures": (lambda: MLP(3, 4, hidden=[7, 6], activation="tanh", size=6), (2, 3, 9, 14), (2, 4)),
    "cnn": (lambda: CNN(1, 10, width=4), (2, 1, 17, 30), (2, 10)),
    "cnn, tiny picture": (lambda: CNN(1, 10, width=4), (2, 1, 2, 3), (2, 10)),
    "vgg": (lambda: VGG(3, 5, depth=16, width=4), (2, 3, 40, 33), (2, 5)),
    "vgg, tiny picture": (lambda: VGG(3, 5, depth=11, width=4), (2, 3, 9, 7), (2, 5)),
    "resnet": (lambda: ResNet(3, 5, width=4), (2, 3, 17, 30), (2, 5)),
    "resnet for large pictures": (lambda: ResNet(3, 5, width=4, large=True), (2, 3, 65, 70), (2, 5)),
    "vit": (lambda: ViT(3, 5, dim=16, depth=2, num_heads=2), (2, 3, 18, 30), (2, 5)),
    "torchvision": (lambda: TorchvisionNet(3, 7, name="mobilenet_v3_small"), (4, 3, 40, 50), (4, 7)),
    "torchvision, grey": (lambda: TorchvisionNet(1, 7), (4, 1, 40, 50), (4, 7)),
    "timm": (lambda: TimmNet(1, 7, name="resnet10t"), (4, 1, 40, 50), (4, 7)),
    "nlinear": (lambda: NLinear(3, 5, window=7), (2, 7, 3), (2, 5)),
    "nlinear, longer series": (lambda: NLinear(1, 2, window=4), (2, 9, 1), (2, 2)),
    "nlinear, shorter series": (lambda: NLinear(2, 2, window=9), (2, 4, 2), (2, 2)),
    "rnn": (lambda: unsettled(RNN(3, 5, "rnn", width=4, depth=2)), (2, 7, 3), (2, 5)),
    "lstm": (lambda: unsettled(RNN(3, 5, "lstm", width=4)), (2, 7, 3), (2, 5)),
    "gru": (lambda: unsettled(RNN(3, 5, "gru", width=4)), (2, 7, 3), (2, 5)),
    "airbench": (lambda: Airbench(3, 5, widths=(8, 16)), (2, 3, 17, 30), (2, 5)),
    "airbench, grey": (lambda: Airbench(1, 5, widths=(8, 16)), (2, 1, 9, 9), (2, 5)),
    "dcgan's generator": (lambda: Generator(7, 3, 30, width=4), (2, 7), (2, 3, 30, 30)),
    "dcgan's discriminator": (lambda: Discriminator(1, 28, width=4), (2, 1, 28, 28), (2,)),
    "dcgan's discriminator, spectral": (lambda: Discriminator(3, 9, width=4, norm="spectral"), (2, 3, 9, 9), (2,)),
    "autoencoder": (lambda: Autoencoder(1, 1, width=4), (2, 1, 17, 30), (2, 1, 17, 30)),
    "dncnn": (lambda: DnCNN(3, 3, width=4), (2, 3, 17, 31), (2, 3, 17, 31)),
    "srresnet": (lambda: SRResNet(3, 3, 3, width=4, depth=2), (2, 3, 7, 10), (2, 3, 21, 30)),
    "srgan": (lambda: SRGANDiscriminator(3, width=4), (2, 3, 33, 50), (2,)),
    "colornet": (lambda: ColorNet(1, 2, width=2), (2, 1, 17, 30), (2, 2, 17, 30)),
    "crnn": (lambda: CRNN(1, 6, width=4, hidden=8), (2, 1, 21, 64), (2, 8, 6)),
    "upsampling generator": (lambda: UpsamplingGenerator(5, 1, 28, width=8), (3, 5), (3, 1, 28, 28)),
    "upsampling generator, odd size": (lambda: UpsamplingGenerator(5, 3, 45, width=8), (3, 5), (3, 3, 45, 45)),
    "upsampling generator, tiny picture": (lambda: UpsamplingGenerator(5, 3, 6, width=8), (3, 5), (3, 3, 6, 6)),
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


def test_a_narrow_resnet_has_the_same_gradients_in_either_memory_format():
    torch.manual_seed(0)
    plain = ResNet(1, 3, width=4)
    last = deepcopy(plain).to(memory_format=torch.channels_last)
    pictures = torch.rand(8, 1, 28, 28)
    for net in (plain, last):
        net(pictures).square().sum().backward()
    for one, other in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)


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
        linear = [layer for layer in single.modules() if isinstance(layer, nn.Linear)]
        for layer, weight, bias in zip(linear, net.weights, net.biases, strict=True):
            layer.weight.data, layer.bias.data = weight[member].T.clone(), bias[member, 0].clone()
        answers.append(single(x))
    torch.testing.assert_close(net(x), torch.stack(answers, dim=1))
    torch.testing.assert_close(net.eval()(x), torch.stack(answers).mean(0))


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_named_nets_have_the_size_of_the_papers():
    assert parameters(ResNet(3, 1000, large=True)) == 11_689_512  # ResNet-18, as torchvision counts it
    convolutions = [layer for layer in VGG(3, 10, depth=16).modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 13 and sum(layer.weight.numel() for layer in convolutions) == 14_710_464


def test_a_perceptron_cannot_compute_exclusive_or_but_two_tanh_units_can():
    rows = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    truth = torch.tensor([0, 1, 1, 0])
    torch.manual_seed(0)
    right = [int((Perceptron(2, 2)(rows).argmax(1) == truth).sum()) for _ in range(2000)]
    assert max(right) == 3  # whatever its weights
    net = MLP(2, 2, hidden=[2], activation="tanh")
    with torch.no_grad():  # tanh(a + b - 0.5) - tanh(a + b - 1.5), steep
        net.layers[0].weight.fill_(20)
        net.layers[0].bias.copy_(torch.tensor([-10.0, -30.0]))
        net.head.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
        net.head.bias.copy_(torch.tensor([1.0, 0.0]))
        assert net(rows).argmax(1).tolist() == truth.tolist()


def test_attention_is_the_mean_of_the_values_by_its_weights():
    attention, x = SelfAttention(8, num_heads=2), torch.randn(3, 5, 8)
    weights = attention.weights(x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 5))
    _, _, values = attention.heads(x)
    torch.testing.assert_close(attention(x), attention.out((weights @ values).transpose(1, 2).flatten(2)))


def test_an_attention_map_is_a_distribution_over_places():
    places = ViT(3, 5, dim=16, depth=2, num_heads=2).attention_map(torch.rand(2, 3, 16, 24))
    assert places.shape == (2, 4, 6)
    torch.testing.assert_close(places.sum((1, 2)), torch.ones(2))


def test_pretrained_weights_bring_their_statistics(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert TorchvisionNet(3, 2).mean is None
    from torchvision.models import ResNet18_Weights, resnet18

    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = resnet18().state_dict()  # stands for the download, which has this name
    torch.save(state, folder / ResNet18_Weights.DEFAULT.url.rpartition("/")[2])
    net = TorchvisionNet(1, 2, weights="DEFAULT")
    assert net.mean == [0.485, 0.456, 0.406] and net.head.out_features == 2
    torch.testing.assert_close(net.net.conv1.weight, state["conv1.weight"])


def test_the_filters_of_a_whitening_are_orthonormal_and_come_with_both_signs():
    filters = Airbench(3, 5).filters.flatten(1)  # (24, 12)
    torch.testing.assert_close(filters[:12] @ filters[:12].T, torch.eye(12), atol=1e-6, rtol=0)
    assert torch.equal(filters[12:], -filters[:12])
