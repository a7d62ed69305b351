"""The two visual projections, written out."""

import math

import pytest
import torch

from dept_vl.errors import DataError
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


def written_out(projection, feature, image, token):
    """Sung et al.'s sum of four terms for one token, by the box of a grid feature and its area, which are zero."""
    parts = {name: p.detach() for name, p in projection.named_parameters()}
    linear = parts["linear.weight"] @ feature + parts["linear.bias"]
    box = parts["box.weight"] @ torch.zeros(5) + parts["box.bias"]
    norms = []
    for vector, name in ((linear, "feature_norm"), (box, "box_norm")):
        norms.append(rms_norm(vector, parts[f"{name}.weight"]) + parts.get(f"{name}.bias", 0))
    return norms[0] + norms[1] + parts["image_ids"][image] + TABLE[len(TABLE) - 1 - token]


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("num_images", [1, 2])
def test_vl_t5_is_feature_plus_box_plus_image_plus_order(num_images, biases):
    projection = built("vl-t5", has_norm_biases=biases)
    with torch.no_grad():
        projection.image_ids.normal_()
        for norm in (projection.feature_norm, projection.box_norm):
            for parameter in norm.parameters():
                parameter.normal_()
    given = features(4 * num_images)
    out = projection(given, TABLE, num_images).detach()
    assert out.shape == (2, 4 * num_images, D_MODEL)
    for example in range(2):
        for place in range(4 * num_images):
            image, token = divmod(place, 4)
            expected = written_out(projection, given[example, place], image, token)
            torch.testing.assert_close(out[example, place], expected)


def test_the_second_image_s_tokens_differ_by_its_number_alone():
    projection, one = built("vl-t5"), features()
    out = projection(torch.cat([one, one], dim=1), TABLE, 2)
    difference = projection.image_ids[1] - projection.image_ids[0]
    torch.testing.assert_close(out[:, 4:] - out[:, :4], difference.expand(2, 4, D_MODEL))
    torch.testing.assert_close(out[:, :4], projection(one, TABLE))
    assert projection.tells_images_apart
    assert not built("linear").tells_images_apart


def test_more_images_than_there_are_numbers_for_are_refused():
    with pytest.raises(DataError, match=r"a row has 3 images, and model\.visual_projection=vl-t5 tells 2 apart"):
        built("vl-t5")(features(6), TABLE, 3)


def test_vl_t5_trains_everything_but_the_order_term():
    projection = built("vl-t5")
    assert {name: tuple(p.shape) for name, p in projection.named_parameters()} == {
        "linear.weight": (D_MODEL, FEATURE_DIM),
        "linear.bias": (D_MODEL,),
        "feature_norm.weight": (D_MODEL,),
        "box.weight": (D_MODEL, 5),
        "box.bias": (D_MODEL,),
        "box_norm.weight": (D_MODEL,),
        "image_ids": (2, D_MODEL),
    }
    projection(features(), TABLE).pow(2).sum().backward()
    assert all(p.grad is not None for p in projection.parameters())
    without = {name for name, p in projection.named_parameters() if not p.grad.any()}
    assert without == {"box.weight"}, "boxes are zero"
    assert projection.image_ids.grad[0].any()
    assert not projection.image_ids.grad[1].any(), "there is one image"


def test_image_numbers_start_so_that_one_image_has_none_and_a_second_is_told_apart():
    projection = build_projection("vl-t5", 400, 500)
    projection.reset_parameters(3)
    first, second = projection.image_ids.detach()
    assert not first.any()
    assert second.std().item() == pytest.approx(1.0, rel=0.1)


def test_vl_t5_has_the_parameters_that_table_3_counts_for_rn101_and_t5_base():
    projection = build_projection("vl-t5", 2048, 768)
    assert sum(p.numel() for p in projection.parameters()) == 1_581_312
    biased = build_projection("vl-t5", 2048, 768, has_norm_biases=True)
    assert sum(p.numel() for p in biased.parameters()) == 1_581_312 + 2 * 768


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
