import json

import pytest
import torch
from torch import nn

from cnnsvm.localization.architectures import build_network
from cnnsvm.localization.architectures.iidnet import (
    OPERATIONS,
    PUBLISHED,
    Cell,
    check_genotype,
)
from cnnsvm.localization.architectures.iidnet.layers import ConstrainedConv, Enhancement, constrain


def assert_constrained(kernels):
    reach = kernels.shape[2] // 2
    centre = kernels[:, :, reach, reach]
    torch.testing.assert_close(centre, -torch.ones_like(centre))
    others = kernels.sum(dim=(2, 3)) - centre
    torch.testing.assert_close(others, torch.ones_like(others))


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
def test_centres_are_minus_one_and_the_rest_sums_to_one(scale):
    weight = scale * torch.randn(4, 3, 5, 5, dtype=torch.float64)
    assert_constrained(constrain(weight))


def test_weights_that_would_divide_by_zero_are_constrained_too():
    weight = torch.ones(1, 1, 3, 3)
    weight[0, 0, 0] = -1
    weight[0, 0, 1, 0] = weight[0, 0, 1, 2] = 0
    assert weight.sum() - weight[0, 0, 1, 1] == 0
    assert_constrained(constrain(weight))


def test_kernels_that_keep_the_rule_stay_and_none_is_nearer():
    kept = constrain(torch.randn(2, 3, 5, 5, dtype=torch.float64))
    torch.testing.assert_close(constrain(kept), kept)
    weight = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    other = constrain(weight + torch.randn(2, 3, 5, 5, dtype=torch.float64))
    assert (constrain(weight) - weight).norm() < (other - weight).norm()


def test_the_constraint_holds_through_training():
    layer = ConstrainedConv()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.5)
    for _ in range(5):
        before = layer.weight.detach().clone()
        loss = layer(torch.rand(1, 3, 12, 12)).square().mean()
        assert torch.equal(layer.weight, before)  # the forward pass writes nothing
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert not torch.equal(layer.weight, before)
        assert_constrained(constrain(layer.weight.detach()))


def test_what_is_flat_leaves_no_residual():
    flat = torch.full((1, 3, 9, 9), 50.0)
    assert ConstrainedConv()(flat).abs().max() < 1e-3


def test_the_enhancement_joins_three_kinds_of_layers():
    enhance = Enhancement().eval()  # a new batch norm passes on what comes
    enhance.norm.eps = 1e-12
    image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    plain, constrained, fixed = enhance(image).split([3, 3, 18], dim=1)
    torch.testing.assert_close(plain, enhance.plain(enhance.see(image)))
    torch.testing.assert_close(constrained, enhance.constrained(image.float() / 4))
    red = image[0, 0].float()
    across = (red[1:-1, 2:] - red[1:-1, 1:-1]).clamp(-8, 8) / 4
    torch.testing.assert_close(fixed[0, 0, 1:-1, 1:-1], across)
    assert {name for name, _ in enhance.named_parameters()} == {
        "plain.weight",
        "constrained.weight",
        "norm.weight",
        "norm.bias",
    }
    assert enhance.train()(image).std(dim=(0, 2, 3)).max() < 1.01


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_each_operation_keeps_its_channels_and_halves_on_demand(name, stride, dilation):
    maps = OPERATIONS[name](16, stride, dilation)(torch.rand(2, 16, 8, 12))
    assert maps.shape == (2, 16, 8 // stride, 12 // stride)


def test_the_published_genotype_has_ten_cells_of_known_operations():
    assert check_genotype(PUBLISHED) == PUBLISHED
    assert {name for cell in PUBLISHED for name in cell} == set(OPERATIONS)
    assert len(PUBLISHED) == 10


def test_a_genotype_survives_json():
    assert check_genotype(json.loads(json.dumps(PUBLISHED))) == PUBLISHED


def test_the_genotype_makes_the_cells():
    genotypes = [[[name] * 3] * 10 for name in OPERATIONS]
    networks = [build_network("iidnet", size="small", genotype=g) for g in genotypes]
    assert len({sum(p.numel() for p in network.parameters()) for network in networks}) == len(
        OPERATIONS
    )
    wide = networks[list(OPERATIONS).index("separable_5x5")].body.cells
    assert [sum(_kernel(m) == 5 for m in cell.modules()) for cell in wide] == [3] * 10
    default = build_network("iidnet", size="small").body.cells
    assert [sum(_kernel(m) == 5 for m in cell.modules()) for cell in default] == [
        cell.count("separable_5x5") for cell in PUBLISHED
    ]


def _kernel(module):
    return module.kernel_size[0] if isinstance(module, nn.Conv2d) else None


def test_a_cell_dilates_all_but_its_last_operation():
    cell = Cell(16, 16, ("dilated_3x3", "separable_3x3", "dilated_3x3"), dilation=2)
    spread = [m.dilation[0] for m in cell.modules() if _kernel(m) == 3]
    assert spread == [2, 2, 1, 1]  # the entry, then the three operations


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        (PUBLISHED[:9], r"must list 10 cells, got 9.*None takes the published"),
        ("identity12", r"must list 10 cells"),
        ((*PUBLISHED[:9], ("identity", "identity")), r"cell 10 must list 3 operations, got"),
        (
            (("identity", "conv_7x7", "identity"), *PUBLISHED[1:]),
            r"'conv_7x7' of cell 1 is not known.*dilated_3x3, separable_3x3",
        ),
    ],
)
def test_bad_genotypes_are_named(genotype, message):
    with pytest.raises(ValueError, match=message):
        build_network("iidnet", genotype=genotype)


def test_the_decision_sees_features_those_like_them_and_those_near_them():
    body = build_network("iidnet", size="small").eval().body
    seen = []
    body.cells.register_forward_hook(lambda _, inputs, output: seen.append(output))
    body.decide.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        body(torch.randint(0, 256, (2, 3, 32, 40), dtype=torch.uint8))
        features, decided_on = seen
        parts = [features, body.look_everywhere(features), body.look_around(features)]
    torch.testing.assert_close(decided_on, torch.cat(parts, dim=1))


def test_the_published_network_has_the_papers_make():
    with torch.device("meta"):
        body = build_network("iidnet").body
    widths = [cell.layers[-1][-1].num_features for cell in body.cells]
    assert widths == [128] + [256] * 9
    assert isinstance(body.decide[1], nn.Conv2d)
    assert body.decide[1].in_channels == 3 * 256
