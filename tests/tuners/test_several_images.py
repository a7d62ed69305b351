"""Every method with rows of two images: where they stand, that batches change nothing, and what tells them apart."""

import pytest
import torch

from dept_vl.tuners.dept.model import Dept
from tests.tuners.adapted import FAMILIES, FEATURE_DIM, VISUAL, S, batch, logits, make
from tests.tuners.test_laws import on_families, tuner_of


def two_images():
    """Padded ids, mask, labels, and features of two images a row, (batch, 2, visual, feature_dim)."""
    ids, mask, labels, first = batch()
    second = torch.randn(len(ids), VISUAL, FEATURE_DIM, generator=torch.Generator().manual_seed(9))
    return ids, mask, labels, torch.stack([first, second], dim=1)


@on_families(*FAMILIES)
def test_logits_of_two_images_do_not_depend_on_padding_or_batch_mates(folders, family, name):
    model = make(folders[family], tuner_of(name), moved=0.1)
    ids, mask, labels, features = two_images()
    together = logits(model, (ids, mask, labels, features))
    for row, (length, target) in enumerate(zip((6, 3, 1), (4, 2, 3), strict=True)):
        one = slice(row, row + 1)
        alone = logits(model, (ids[one, :length], mask[one, :length], labels[one, :target], features[one]))
        torch.testing.assert_close(together[one, :target], alone, rtol=1e-4, atol=2e-5)


@on_families(*FAMILIES)
def test_two_images_of_a_linear_projection_are_read_as_one_of_twice_the_tokens(folders, family, name):
    model = make(folders[family], tuner_of(name), moved=0.1)
    ids, mask, labels, features = two_images()
    of_one = logits(model, (ids, mask, labels, features.flatten(1, 2)))
    torch.testing.assert_close(logits(model, (ids, mask, labels, features)), of_one, rtol=0, atol=0)
    assert (logits(model, (ids, mask, labels, features[:, 0])) - of_one).abs().max() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("projection", ["linear", "vl-t5"])
@pytest.mark.parametrize("bias", ["zero", "sequential"])
def test_the_order_of_images_counts_where_the_model_says_so_and_nowhere_else(folders, family, projection, bias):
    rule = {"visual_position_bias": bias} if family.startswith("t5") else {}
    model = make(folders[family], tuner_of("dept"), moved=0.1, visual_projection=projection, **rule)
    ids, mask, labels, features = two_images()
    given, swapped = (logits(model, (ids, mask, labels, those)) for those in (features, features.flip(1)))
    difference = (given - swapped)[labels != -100].abs().max().item()
    assert (difference > 1e-4) == model.tells_images_apart
    assert difference > 1e-4 or difference < 2e-5
    assert model.tells_images_apart or (bias == "zero" and family.startswith("t5"))


class Watching(Dept):
    """DePT that keeps what it is told of a pass."""

    told = None

    def embed(self, text_embeds, info=None):
        self.told = info
        return super().embed(text_embeds, info)


def test_a_method_is_told_of_the_tokens_of_all_images(t5_folder):
    model = make(t5_folder, tuner_of("prompt-tuning"))
    context = model.backbone.tuner_context(S, seed=0, tokenize=lambda text: [1])
    model.tuner = Watching(tuner_of("dept"), context)
    ids, mask, labels, features = two_images()
    logits(model, (ids, mask, labels, features))
    assert model.tuner.told.num_visual_tokens == 2 * VISUAL
    logits(model, (ids, mask, labels, features[:, 0]))
    assert model.tuner.told.num_visual_tokens == VISUAL
