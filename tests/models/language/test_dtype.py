"""A backbone whose frozen weights are kept in bfloat16, beside the float32 one."""

import pytest
import torch

from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.tuners import DeptConfig
from tests.models.language.causal_folders import SAVE_TINY, set_attention

FEATURE_DIM, S = 10, 8
TUNER = DeptConfig(budget_tokens=9, num_virtual_tokens=3, prompt_init="vocabulary", allow_nearest=True)
IDS = [[5, 6, 1], [7, 1]]


def make(folder, *, attention="sdpa", **settings):
    config = ModelConfig(backbone=str(folder), **settings)
    model, _ = build_model(config, TUNER, max_source_length=S, feature_dim=FEATURE_DIM, seed=0)
    set_attention(model, attention)
    return model.eval()


def batch():
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(2, 30, (3, 6), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    labels = torch.randint(2, 30, (3, 3), generator=generator)
    return ids * mask, mask, labels, torch.randn(3, 5, FEATURE_DIM, generator=generator)


@pytest.fixture(params=["t5", "t5-v1.1", "gpt2", "llama", "qwen3", "gemma", "gemma2"])
def folder(request, t5_folder, t5_v1_1_folder, tmp_path):
    ready = {"t5": t5_folder, "t5-v1.1": t5_v1_1_folder}
    if request.param in ready:
        return ready[request.param]
    return SAVE_TINY[request.param](tmp_path)


@pytest.mark.parametrize("kind", ["linear", "vl-t5"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("is_autocast", [False, True])
def test_bfloat16_weights_give_nearly_the_same_losses_gradients_and_scores(folder, attention, kind, is_autocast):
    whole, rounded = (
        make(folder, attention=attention, dtype=dtype, visual_projection=kind) for dtype in ("float32", "bfloat16")
    )
    assert {weight.dtype for weight in rounded.backbone.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in rounded.trainable_state().values()} == {torch.float32}
    ids, mask, labels, features = batch()
    found = []
    for model in (whole, rounded):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast and model is rounded):
            loss = model(ids, mask, labels, features).loss_per_example
            scores = model.score_labels(ids, mask, features, labels=LabelTrie.build(IDS))
            tokens = model.generate(ids, mask, features, num_beams=2, max_new_tokens=3)
        loss.sum().backward()
        gradient = torch.cat([p.grad.flatten() for group in model.param_groups() for p in group.parameters])
        found.append((loss.detach(), scores, gradient))
        assert tokens.shape[0] == 3
        assert loss.dtype == gradient.dtype == scores.dtype == torch.float32
    (loss, scores, gradient), (near_loss, near_scores, near_gradient) = found
    torch.testing.assert_close(near_loss, loss, rtol=0.03, atol=0.03)
    torch.testing.assert_close(near_scores, scores, rtol=0.03, atol=0.03)
    assert torch.nn.functional.cosine_similarity(near_gradient, gradient, dim=0) > 0.98


def test_an_adapter_fits_both_precisions_of_its_backbone(t5_folder, tmp_path):
    model = make(t5_folder, dtype="bfloat16")
    with torch.no_grad():
        model.tuner.lowrank_b.normal_()
    model.save_pretrained(tmp_path)
    for dtype in ("float32", "bfloat16"):
        loaded, _ = load_model(tmp_path, ModelConfig(backbone=str(t5_folder), dtype=dtype))
        for name, tensor in model.trainable_state().items():
            assert torch.equal(loaded.trainable_state()[name], tensor), name
