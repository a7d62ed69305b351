"""Rows of several adapters in one batch answer as each adapter alone."""

import pytest
import torch

from dept_vl.errors import DataError
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.serving.mixed import MixableAdapter, mixable, mixed_joint_input
from dept_vl.tuners.row_embedding import RowEmbedding, embed_rows
from tests.tuners.adapted import FAMILIES, batch, make, settings

LENGTHS, TARGETS = (6, 3, 1, 6, 4, 2), (4, 2, 3, 1, 2, 4)


def _dept(**own):
    given = {"row_alignment": "first-token", **own}  # on every family, beside those with the other
    return settings("dept", budget_tokens=12, num_virtual_tokens=4, rank=None, allow_nearest=True, **given)


METHODS = {
    "dept": _dept(),
    "other-dept": _dept(),
    "scaled-dept": _dept(scaling="alpha/sqrt(r)"),
    "few-rows-dept": _dept(lowrank_rows=3),
    "last-token-dept": _dept(row_alignment="last-token"),
    "prompt-tuning": settings("prompt-tuning", num_virtual_tokens=4),
}


def adapters(folder, *, feature_dim=6, **options) -> list[MixableAdapter]:
    """Adapters of different values, on one loaded backbone, with prompts of four vectors."""
    found = []
    for seed, tuner in enumerate(METHODS.values()):
        model = make(folder, tuner, feature_dim=feature_dim, seed=seed, moved=0.5, **options)
        with torch.no_grad():
            for parameter in model.tuner.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * 0.5)
        if found:
            model.backbone = found[0].model.backbone
        one = mixable(model)
        assert one is not None
        found.append(one)
    return found


@pytest.mark.parametrize("kind", ["linear", "vl-t5"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_answers_of_a_mixed_batch_are_those_of_each_adapter_alone(folders, family, kind):
    found = adapters(folders[family], visual_projection=kind)
    ids, mask, labels, features = batch(LENGTHS, TARGETS)
    joint = mixed_joint_input(found, ids, mask, features)
    backbone = found[0].model.backbone
    trie = LabelTrie.build([[5, 6, 1], [5, 7, 1], [9, 1]], torch.device("cpu"))
    with torch.no_grad():
        together = backbone.logits(joint, labels)
        scores = trie.log_likelihoods(backbone.trie_logits(joint, trie))
        texts = backbone.generate(joint, num_beams=1, max_new_tokens=5)
    for row, one in enumerate(found):
        own = (ids[row : row + 1, : LENGTHS[row]], mask[row : row + 1, : LENGTHS[row]])
        image = features[row : row + 1]
        alone = one.model(*own, labels[row : row + 1], image).logits
        is_read = labels[row] != -100
        torch.testing.assert_close(together[row][is_read], alone[0][is_read], atol=1e-5, rtol=1e-5)
        scored = one.model.score_labels(*own, image, labels=trie)
        torch.testing.assert_close(scores[row], scored[0], atol=1e-5, rtol=1e-5)
        generated = one.model.generate(*own, image, max_new_tokens=5)[0]
        assert texts[row, : len(generated)].tolist() == generated.tolist()
    assert len({tuple(row.tolist()) for row in scores}) == len(found)  # they do differ


def test_texts_alone_and_adapters_in_any_order_may_repeat(folders):
    found = adapters(folders["t5"], feature_dim=None)
    order = [3, 0, 0, 5, 3, 1]
    ids, mask, labels, _ = batch(LENGTHS, TARGETS)
    with torch.no_grad():
        together = found[0].model.backbone.logits(mixed_joint_input([found[n] for n in order], ids, mask), labels)
        for row, number in enumerate(order):
            alone = found[number].model(ids, mask, labels).logits[row]
            torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)


def test_methods_that_do_more_than_embed_are_not_mixed(folders):
    assert mixable(make(folders["t5"], settings("lora", rank=3))) is None
    assert mixable(make(folders["t5"], settings("prefix-tuning"))) is None
    assert mixable(make(folders["t5"], settings("p-tuning", num_virtual_tokens=4, hidden_size=10))) is not None


def test_prompts_of_other_lengths_have_another_key_and_are_refused(folders):
    short = mixable(make(folders["t5"], settings("prompt-tuning", num_virtual_tokens=3)))
    long = mixable(make(folders["t5"], settings("prompt-tuning", num_virtual_tokens=4)))
    assert short.key != long.key
    with pytest.raises(DataError, match=r"2 adapters with prompts of \[3, 4\] tokens"):
        mixed_joint_input([short, long], *batch((2, 1), (1, 1))[:2])


def test_no_prompt_and_no_update_change_nothing(folders):
    info = make(folders["t5"], METHODS["dept"]).forward_info(torch.ones(2, 3, dtype=torch.long), None)
    text = torch.randn(2, 3, 4)
    nothing = RowEmbedding(torch.zeros(0, 4))
    assert torch.equal(embed_rows([nothing, nothing], text, info), text)
