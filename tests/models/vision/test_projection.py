"""The two visual projections, written out."""

import math

import pytest
import torch

from dept_vl.models.vision.projection import build_projection, project_features

FEATURE_DIM, D_MODEL = 10, 6
TABLE = torch.randn(20, D_MODEL, generator=torch.Generator().manual_seed(0))


def features(visual=4):
    return torch.randn(2, visual, FEATURE_DIM, generator=torch.Generator().manual_seed(1))


def built(kind, seed=0, **settings):
    projection = build_projection(kind, FEATURE_DIM, D_MODEL, **settings)
    projection.reset_parameters(seed)
    return projection


def rms_norm(vector, weight):
    return vector / math.sqrt(float((vector**2).mean()) + 1e-6) * weight


def test_linear_is_weight_times_feature_plus_bias():
    projection = built("linear")
    out, given = projection(features(), TABLE), features()
    for example in range(2):
        for token in range(4):
            expected = projection.linear.weight @ given[example, token] + projection.linear.bias
            torch.testing.assert_close(out[example, token], expected)


def test_linear_has_the_published_number_of_parameters():
    projection = build_projection("linear", 2048, 768)
    assert sum(p.numel() for p in projection.parameters()) == 2048 * 768 + 768


def test_vl_t5_is_feature_plus_position_plus_order():
    projection = built("vl-t5")
    with torch.no_grad():
        projection.feature_norm.weight.normal_()
        projection.position_norm.weight.normal_()
    out, given = projection(features(), TABLE).detach(), features()
    for example in range(2):
        for token in range(4):
            linear = (projection.linear.weight @ given[example, token] + projection.linear.bias).detach()
            feature = rms_norm(linear, projection.feature_norm.weight.detach())
            position = rms_norm(projection.position.detach(), projection.position_norm.weight.detach())
            order = TABLE[len(TABLE) - 1 - token]
            torch.testing.assert_close(out[example, token], feature + position + order)


def test_vl_t5_trains_everything_but_the_order_term():
    projection = built("vl-t5")
    assert {name: tuple(p.shape) for name, p in projection.named_parameters()} == {
        "linear.weight": (D_MODEL, FEATURE_DIM),
        "linear.bias": (D_MODEL,),
        "feature_norm.weight": (D_MODEL,),
        "position": (D_MODEL,),
        "position_norm.weight": (D_MODEL,),
    }
    projection(features(), TABLE).pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in projection.parameters())


@pytest.mark.parametrize("kind", ["linear", "vl-t5"])
def test_first_values_depend_on_the_seed_alone(kind):
    torch.manual_seed(1)
    first, before = built(kind, seed=4).state_dict(), torch.get_rng_state()
    second, other = built(kind, seed=4).state_dict(), built(kind, seed=5).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["linear.weight"], other["linear.weight"])


def test_default_start_is_that_of_a_linear_layer():
    projection = build_projection("linear", 400, 50)
    projection.reset_parameters(0)
    reference = torch.nn.Linear(400, 50)
    largest = projection.linear.weight.abs().max().item()
    assert largest <= 1 / 20
    assert largest == pytest.approx(reference.weight.abs().max().item(), rel=0.01)
    assert projection.linear.weight.std().item() == pytest.approx(reference.weight.std().item(), rel=0.05)


def test_start_with_a_configured_deviation():
    projection = build_projection("linear", 400, 50, init_std=0.3)
    projection.reset_parameters(0)
    assert projection.linear.weight.std().item() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("kind", ["linear", "vl-t5"])
def test_each_image_of_a_row_has_the_tokens_it_has_alone(kind):
    projection, given = (
        built(kind),
        torch.stack([features(), features().flip(0)], dim=1),
    )  # (batch, images, 4, features)
    out = project_features(projection, given, TABLE)
    assert out.shape == (2, 8, D_MODEL)
    if not projection.tells_images_apart:
        alone = [project_features(projection, given[:, image], TABLE) for image in range(2)]
        assert torch.equal(out, torch.cat(alone, dim=1))


def test_the_order_term_of_vl_t5_begins_anew_in_each_image():
    projection, same = built("vl-t5"), features()[:, None].expand(-1, 2, -1, -1)
    first, second = project_features(projection, same, TABLE).detach().unflatten(1, (2, 4)).unbind(1)
    difference = second - first  # which image a token is of, where the projection says it
    torch.testing.assert_close(difference, difference[:1, :1].expand_as(difference))
