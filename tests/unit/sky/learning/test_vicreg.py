"""Tests of VICReg on one rank: the loss agrees with its formula; batch normalisation and backbones are correct."""

import numpy as np
import pytest
import torch
from torch import nn

from scimill.sky.learning import backbones, vicreg
from scimill.sky.learning.batchnorm import BatchNorm
from scimill.sky.learning.vicreg import Gather, Weights

ALONE = Gather()


def embeddings(n: int, d: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Two correlated sets of embeddings, with standard deviations from 0.2 to 2.3."""
    random = torch.Generator().manual_seed(seed)
    first, noise = (torch.randn(n, d, dtype=torch.float64, generator=random) for _ in range(2))
    spread = torch.linspace(0.2, 1.6, d, dtype=torch.float64)
    return (first * spread + 3).requires_grad_(), ((first + noise) * spread - 1).requires_grad_()


def by_definition(first: np.ndarray, second: np.ndarray, weights: Weights) -> np.ndarray:
    """The terms as in the paper, but the first divided by d as in the published code; numpy, float64."""
    n, d = first.shape

    def v(z: np.ndarray) -> float:
        return sum(max(0.0, 1 - np.sqrt(np.var(z[:, j], ddof=1) + 1e-4)) for j in range(d)) / d

    def c(z: np.ndarray) -> float:
        covariance = np.cov(z, rowvar=False, ddof=1)
        return sum(covariance[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d

    s = sum(np.sum((first[k] - second[k]) ** 2) for k in range(n)) / (n * d)
    both = (v(first) + v(second)) * (0.5 if weights.variance_half else 1)
    return np.array([weights.invariance * s, weights.variance * both, weights.covariance * (c(first) + c(second))])


@pytest.mark.parametrize(("n", "d"), [(2, 5), (8, 24), (24, 8), (16, 16)])
@pytest.mark.parametrize("half", [True, False])
def test_the_loss_is_that_of_the_formula(n, d, half):
    weights = Weights(25.0, 20.0, 1.5, half)
    first, second = embeddings(n, d)
    terms, samples = vicreg.vicreg(first, second, weights, ALONE)
    assert samples == n
    expected = by_definition(first.detach().numpy(), second.detach().numpy(), weights)
    assert terms.detach().numpy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(8, 24), (24, 8)])
def test_the_gradient_is_that_of_the_formula(n, d):
    weights = Weights()
    first, second = embeddings(n, d)
    gradients = torch.autograd.grad(vicreg.vicreg(first, second, weights, ALONE)[0].sum(), (first, second))
    # the same terms with PyTorch's own variance and covariance, from the whole d x d matrix
    v = [torch.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in (first, second)]
    c = [torch.cov(z.T) for z in (first, second)]
    off = [(matrix - matrix.diag().diag()).square().sum() / d for matrix in c]
    loss = 25 * nn.functional.mse_loss(first, second) + 12.5 * sum(v) + sum(off)
    expected = torch.autograd.grad(loss, (first, second))
    for one, other in zip(gradients, expected, strict=True):
        assert (one - other).abs().max() < 1e-12 * other.abs().max()


def test_half_precision_is_computed_in_float32():
    first, second = (z.detach().half() * 100 for z in embeddings(8, 512))
    terms, _ = vicreg.vicreg(first, second, Weights(), ALONE)
    assert terms.dtype == torch.float32
    assert terms.isfinite().all()  # the sums of squares exceed the range of float16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = vicreg.vicreg(first, second, Weights(), ALONE)
    assert torch.equal(inside, terms)


def test_one_sample_has_no_loss_but_a_gradient():
    first, second = (z[:1] for z in embeddings(4, 3))
    terms, _ = vicreg.vicreg(first, second, Weights(), ALONE)
    assert terms.tolist() == [0, 0, 0]
    assert not torch.autograd.grad(terms.sum(), first)[0].any()


def test_the_noise_floor_is_the_covariance_of_independent_columns():
    random = torch.Generator().manual_seed(1)
    found = [
        vicreg.vicreg(*torch.randn(2, 16, 128, dtype=torch.float64, generator=random), Weights(), ALONE)[0][2]
        for _ in range(20)
    ]
    assert torch.stack(found).mean().item() == pytest.approx(vicreg.noise_floor(16, 128), rel=0.05)


# ---- layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 3), (5, 3, 4, 2)])
def test_batch_normalisation_is_pytorchs(shape):
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    own, theirs = BatchNorm(3).double(), kind(3).double()
    own.sum = lambda tensor: tensor  # take the path for several ranks on one rank
    for step in range(3):
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step)) * 2 + 5
        pair = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [layer(value) for layer, value in zip((own, theirs), pair, strict=True)]
        gradients = [torch.autograd.grad(y.pow(3).sum(), z) for y, z in zip(outputs, pair, strict=True)]
        assert (outputs[0] - outputs[1]).abs().max() < 1e-12
        assert (gradients[0][0] - gradients[1][0]).abs().max() < 1e-9
    assert own.running_mean == pytest.approx(theirs.running_mean)
    assert own.running_variance == pytest.approx(theirs.running_var)
    own.eval(), theirs.eval()
    assert (own(x) - theirs(x)).abs().max() < 1e-12


def test_batch_normalisation_keeps_digits_beside_a_large_mean():
    layer = BatchNorm(1)
    layer.sum = lambda tensor: tensor
    x = torch.randn(4096, 1, generator=torch.Generator().manual_seed(1)) + 1000
    for _ in range(200):
        layer(x)
    assert layer(x).std().item() == pytest.approx(1.0, rel=1e-3)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [
        # torchvision's counts without the last layer: 11 689 512 - 513 000, 21 797 672 - 513 000, …
        ("resnet18", 3, 11_176_512), ("resnet34", 3, 21_284_672), ("resnet50", 3, 23_508_032),
        ("resnet50", 1, 23_501_760),
    ],
)  # fmt: skip
def test_residual_networks_have_the_published_size(name, channels, expected):
    assert parameters(backbones.make_backbone(name, channels)) == expected


@pytest.mark.parametrize(
    ("name", "width", "features"), [("resnet10", 8, 64), ("resnet50", 4, 128), ("vit-micro", 8, 96)]
)
def test_backbones_make_features_of_images_of_any_size(name, width, features):
    model = backbones.make_backbone(name, 2, width=width, patch=8)
    assert model.features == features
    for shape in ((3, 2, 32, 40), (1, 2, 64, 48)):
        assert model(torch.zeros(shape)).shape == (shape[0], features)
    assert model(torch.zeros(0, 2, 32, 32)).shape == (0, features)


def test_a_transformer_knows_where_its_patches_are():
    model = backbones.make_backbone("vit-micro", 1, patch=8)
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(model(image), model(image.flip(3)), atol=1e-4)
    found = backbones.positions(3, 5, 16)
    assert found.shape == (15, 16)
    assert len(torch.unique(found, dim=0)) == 15


def test_a_projector_has_no_bias_at_its_end():
    model = backbones.Projector(6, (8, 8, 4))
    assert parameters(model) == 6 * 8 + 8 + 16 + 8 * 8 + 8 + 16 + 8 * 4
    with torch.device("meta"):  # the published projector; its weights would take 600 MB
        assert parameters(backbones.Projector(2048, (8192, 8192, 8192))) == 2048 * 8192 + 2 * 8192 * 8192 + 6 * 8192
