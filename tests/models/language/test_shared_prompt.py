"""A prompt that a decoder-only model reads once for all rows: the numbers of one that each row reads for itself."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dept_vl.models.language.label_trie import LabelTrie
from tests.tuners.adapted import DECODER_ONLY, LIKE_LLAMA, batch, make, settings

LABELS = [[5, 6, 1], [5, 7, 8, 1], [9, 1]]
METHODS = {
    "dept": {"budget_tokens": 12},
    "dept, last token": {"budget_tokens": 12, "row_alignment": "last-token"},
    "dept, few rows, jitter": {"budget_tokens": 12, "lowrank_rows": 4, "position_jitter": 3, "allow_nearest": True},
    "prompt-tuning": {"num_virtual_tokens": 4},
    "p-tuning": {"num_virtual_tokens": 4, "hidden_size": 10},
    "adept": {"num_virtual_tokens": 4, "rank": 3, "dropout": 0.0},
    "ulpt": {"num_virtual_tokens": 4},
    "mpt": {"num_virtual_tokens": 4},
    "dept+lora": {"parts.dept.budget_tokens": 12, "parts.lora.rank": 3, "parts.lora.dropout": 0.0},
    "dept+adapter": {"parts.dept.budget_tokens": 12, "parts.adapter.bottleneck": 3},
    "dept+prefix-tuning": {"parts.dept.budget_tokens": 12, "parts.prefix-tuning.prefix_length": 2},
    "prompt-tuning+bitfit": {"parts.prompt-tuning.num_virtual_tokens": 4},
    "prompt-tuning+ia3": {"parts.prompt-tuning.num_virtual_tokens": 4},
    "prompt-tuning+p-tuning": {
        "parts.prompt-tuning.num_virtual_tokens": 2, "parts.p-tuning.num_virtual_tokens": 3,
        "parts.p-tuning.hidden_size": 10,
    },
    "dept+fine-tuning": {"parts.dept.budget_tokens": 12},
}  # fmt: skip

every_method = pytest.mark.parametrize("name", METHODS)
families = pytest.mark.parametrize("family", DECODER_ONLY)


def made(folder, name="dept", *, read_by_each_row=False, **options):
    """A model without dropout, its method moved from its start."""
    tuner = settings(name.partition(",")[0], **METHODS[name])
    model = make(folder, tuner, **{"moved": 0.1, "dropout_rate": 0.0, **options})
    if read_by_each_row:
        model.backbone.reads_once = False
    return model


def shares(model, arguments=None):
    """How many prompt tokens a batch has in common."""
    ids, mask, _, features = arguments or batch()
    features = features if model.visual_projection else None
    info = model.forward_info(mask, features)
    with model._acting(info):
        return model.joint_input(ids, mask, features, info).num_shared


def gradients(model, arguments):
    """Losses and gradients of a step of training."""
    torch.manual_seed(7)  # of the jitter
    losses = model.train()(*arguments).loss_per_example
    losses.mean().backward()
    return losses.detach(), {key: p.grad for key, p in model.named_parameters() if p.requires_grad}


@every_method
@families
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "recomputed"])
def test_loss_and_gradients_are_those_of_rows_that_each_read_it(folders, family, name, checkpointing):
    """The backbone computes in float64: in float32 either way is up to 2e-5 from these numbers on such a tiny Llama."""
    once = made(folders[family], name, gradient_checkpointing=checkpointing)
    each = made(folders[family], name, read_by_each_row=True)
    for model in (once, each):
        model.backbone.model.double()
    assert shares(once) == once.tuner.num_virtual_tokens > 0
    assert shares(each) == 0
    losses, found = gradients(once, batch())
    expected_losses, expected = gradients(each, batch())
    torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=0)
    largest = max(float(gradient.norm()) for gradient in expected.values() if gradient is not None)
    for key, gradient in expected.items():
        if gradient is None:
            assert found[key] is None, key
        else:
            error = (found[key] - gradient).norm()
            assert error <= 1e-5 * gradient.norm() + 1e-8 * largest, (key, error, gradient.norm())


@every_method
@families
@pytest.mark.parametrize("with_image", [True, False], ids=["image", "text"])
def test_answers_are_those_of_rows_that_each_read_it(folders, family, name, with_image):
    models = [
        made(folders[family], name, read_by_each_row=each, feature_dim=6 if with_image else None)
        for each in (False, True)
    ]
    ids, mask, _, features = batch()
    image = (features,) if with_image else ()
    trie = LabelTrie.build(LABELS)
    for _ in range(2):  # the second time from what was kept
        once, each = (model.score_labels(ids, mask, *image, labels=trie) for model in models)
        torch.testing.assert_close(once, each, rtol=1e-5, atol=1e-5)
        once, each = (model.embed(ids, mask, *image) for model in models)
        torch.testing.assert_close(once, each, rtol=1e-5, atol=1e-5)
        for beams in (1, 4):
            once, each = (model.generate(ids, mask, *image, num_beams=beams, max_new_tokens=5) for model in models)
            assert torch.equal(once, each)


@pytest.mark.parametrize("family", LIKE_LLAMA)
def test_every_family_computes_the_same_within_its_window_and_below_its_cap(folders, family):
    once, each = (made(folders[family], read_by_each_row=each) for each in (False, True))
    ids, mask, _, features = batch()
    assert shares(once) == once.tuner.num_virtual_tokens
    trie = LabelTrie.build(LABELS)
    one, other = (model.score_labels(ids, mask, features, labels=trie) for model in (once, each))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for beams in (1, 4):
        one, other = (model.generate(ids, mask, features, num_beams=beams, max_new_tokens=5) for model in (once, each))
        assert torch.equal(one, other)
    for model in (once, each):
        model.backbone.model.double()
    ids, mask, labels, features = batch()  # without padding: Gemma 2's softmax, in float32, has no number so small
    losses, found = gradients(once, (ids, torch.ones_like(mask), labels, features))
    expected_losses, expected = gradients(each, (ids, torch.ones_like(mask), labels, features))
    torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=0)
    for key, gradient in expected.items():
        assert (found[key] - gradient).norm() <= 1e-5 * gradient.norm(), key


@families
def test_a_prompt_of_words_is_those_words_in_the_text(folders, family):
    """transformers alone, on ids: the prompt's vectors are the embeddings of tokens that then stand in the text."""
    model = made(folders[family], "prompt-tuning", feature_dim=None)
    words = torch.tensor([7, 3, 11, 20])
    with torch.no_grad():
        model.tuner.soft_prompt.copy_(model.backbone.embed_tokens(words))
    ids, mask, labels, _ = batch()
    assert shares(model) == 4
    with_gradient = model(ids, mask, labels).logits
    with torch.no_grad():
        without = model(ids, mask, labels).logits
    for row, (length, target) in enumerate(zip((6, 3, 1), (4, 2, 3), strict=True)):
        text = torch.cat([words, ids[row, :length], labels[row, : target - 1]])
        expected = model.backbone.model(input_ids=text[None]).logits[0, 3 + length :]
        for found in (with_gradient, without):
            torch.testing.assert_close(found[row, :target], expected, rtol=1e-5, atol=1e-5)


@families
@pytest.mark.parametrize("needs_gradient", [True, False])
def test_neither_padding_nor_batch_mates_matter(folders, family, needs_gradient):
    model = made(folders[family], "dept, last token", feature_dim=None)
    ids, mask, labels, _ = batch()
    wider = [torch.nn.functional.pad(tensor, (0, 5)) for tensor in (ids, mask)]
    with torch.set_grad_enabled(needs_gradient):
        together = model(*wider, labels).logits
        for row, (length, target) in enumerate(zip((6, 3, 1), (4, 2, 3), strict=True)):
            one = slice(row, row + 1)
            alone = model(ids[one, :length], mask[one, :length], labels[one, :target]).logits
            torch.testing.assert_close(together[one, :target], alone, rtol=1e-5, atol=1e-5)
        rubbish = torch.where(wider[1] == 0, 17, wider[0])
        assert torch.equal(model(rubbish, wider[1], labels).logits, together)


@families
@pytest.mark.parametrize("needs_gradient", [True, False])
def test_a_row_without_a_token_of_its_own_predicts_from_the_prompt(folders, family, needs_gradient):
    once, each = (made(folders[family], read_by_each_row=each, feature_dim=None) for each in (False, True))
    ids, mask, labels, _ = batch()
    mask[2] = 0
    assert shares(once, (ids, mask, labels, None)) == once.tuner.num_virtual_tokens - 1
    with torch.set_grad_enabled(needs_gradient):
        torch.testing.assert_close(once(ids, mask, labels).logits, each(ids, mask, labels).logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(once.generate(ids, mask, max_new_tokens=4), each.generate(ids, mask, max_new_tokens=4))
    empty = made(folders[family], "prompt-tuning", feature_dim=None)
    empty.tuner.num_virtual_tokens = 1
    empty.tuner.soft_prompt = torch.nn.Parameter(empty.tuner.soft_prompt[:1].detach())
    assert shares(empty, (ids, mask, labels, None)) == 0


def prompts_read(model, monkeypatch):
    """Counts how often the prompt is read alone."""
    count, read = SimpleNamespace(times=0), model.backbone._keys_of

    def counted(segment, before=None):
        count.times += 1
        return read(segment, before)

    monkeypatch.setattr(model.backbone, "_keys_of", counted)
    return count


@families
def test_keys_are_made_once_for_the_same_vectors_and_anew_for_others(folders, family, monkeypatch, tmp_path):
    model = made(folders[family])
    count = prompts_read(model, monkeypatch)
    ids, mask, _, features = batch()
    first = model.generate(ids, mask, features, max_new_tokens=3)
    model.score_labels(ids[:1], mask[:1], features[:1], labels=LabelTrie.build(LABELS))
    assert torch.equal(model.generate(ids, mask, features, max_new_tokens=3), first)
    assert count.times == 1
    model.save_pretrained(tmp_path)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    model.train()(*batch()).loss_per_example.mean().backward()
    optimizer.step()
    assert count.times == 1  # a step of training makes none
    fresh = made(folders[family], read_by_each_row=True)
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(*batch()).logits, fresh(*batch()).logits, rtol=1e-5, atol=1e-5)
        assert count.times == 2
        with torch.autocast("cpu", torch.bfloat16):
            model(*batch())
        assert count.times == 3
    model.load_adapter(tmp_path)
    assert torch.equal(model.generate(ids, mask, features, max_new_tokens=3), first)
    assert count.times == 4


@pytest.mark.parametrize("name", ["dept+lora", "dept+fine-tuning"])
def test_keys_are_not_kept_where_more_than_the_vectors_makes_them(folders, name, monkeypatch):
    model = made(folders["llama"], name)
    count = prompts_read(model, monkeypatch)
    ids, mask, _, features = batch()
    before = model.score_labels(ids, mask, features, labels=LabelTrie.build(LABELS))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_b" in key or "mlp.down_proj" in key):
                parameter.add_(0.3)
    after = model.score_labels(ids, mask, features, labels=LabelTrie.build(LABELS))
    model.backbone.reads_once = False
    expected = model.score_labels(ids, mask, features, labels=LabelTrie.build(LABELS))
    assert count.times == 2
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


@families
def test_while_dropout_draws_every_row_reads_its_own(folders, family):
    model = made(folders[family], dropout_rate=0.1)
    assert shares(model.eval()) > 0
    assert shares(model.train()) == 0
    stacked = made(folders[family], "dept+lora")
    for update in stacked.tuner.parts["lora"].updates.values():
        update.dropout = 0.1
    assert shares(stacked.eval()) > 0
    assert shares(stacked.train()) == 0


def test_prompts_of_tasks_and_of_examples_are_read_by_each_row(folders):
    for name in ("mpt", "attempt", "mpt+lora"):
        sizes = {"mpt+lora": {"parts.mpt.num_virtual_tokens": 4}}.get(name, {"num_virtual_tokens": 4})
        model = make(folders["llama"], settings(name, **sizes), tasks=("rte", "cola"), feature_dim=None)
        ids, mask, labels, _ = batch()
        tasks = torch.tensor([0, 1, 0])
        info = model.forward_info(mask, None, tasks)
        with model._acting(info):
            assert model.joint_input(ids, mask, None, info).num_shared == 0
        together = model(ids, mask, labels, None, tasks).logits
        for row in range(3):
            one = slice(row, row + 1)
            alone = model(ids[one], mask[one], labels[one], None, tasks[one]).logits
            torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)
        info = model.forward_info(mask, None, torch.ones(3, dtype=torch.long))
        with model._acting(info):
            assert bool(model.joint_input(ids, mask, None, info).num_shared) == (name != "attempt")


def test_adapters_of_each_task_keep_the_rows_prompts(folders):
    tuner = settings("dept+adapter", **METHODS["dept+adapter"], **{"parts.adapter.per_task": True})
    model = make(folders["llama"], tuner, tasks=("rte", "cola"))
    assert shares(model) == 0


def test_where_the_last_states_are_looked_at_every_row_reads_its_own(folders):
    """A teacher's distance is over all places that a row reads, the prompt's among them."""
    from dept_vl.models.distillation import state_hooks

    model = made(folders["llama"], "mpt")
    ids, mask, _, features = batch()
    info = model.forward_info(mask, features)
    with model._acting(info, state_hooks(model.backbone)):
        assert model.joint_input(ids, mask, features, info).num_shared == 0


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window": 8},
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8},
        {"layer_types": ["full_attention", "chunked_attention"]},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ],
    ids=["window", "window by layer", "chunks", "dynamic positions"],
)
def test_attention_that_depends_on_lengths_is_left_to_each_row(folders, change, monkeypatch):
    model = made(folders["llama"])
    assert shares(model) > 0
    for key, value in change.items():
        monkeypatch.setattr(model.backbone.model.config, key, value, raising=False)
    assert shares(model) == 0


def test_a_family_that_does_not_say_so_and_a_single_row_are_as_before(folders, monkeypatch):
    model = made(folders["llama"])
    one = [tensor[:1] for tensor in batch()]
    assert shares(model, one) == 0  # in training nothing is saved
    with torch.no_grad():
        assert shares(model, one) > 0  # kept keys save the whole prompt
    monkeypatch.setattr(type(model.backbone), "layout", replace(model.backbone.layout, has_plain_attention=False))
    assert shares(model) == 0


def test_with_a_share_of_the_weights_every_process_runs_the_model_as_often(folders, monkeypatch):
    """Whatever is in its batch, and whether it has been asked before: rows, one row, a row without a token."""
    model = made(folders["llama"], feature_dim=None)
    monkeypatch.setattr(model.backbone, "is_sharded", True)
    runs = []
    model.backbone.model.model.layers[0].register_forward_hook(lambda *_: runs.append(1))
    ids, mask, labels, _ = batch()
    for rows, length in ((3, 6), (3, 6), (1, 6), (3, 0)):
        arguments = ids[:rows], mask[:rows] * (torch.arange(6) < length), labels[:rows]
        runs.clear()
        model(*arguments)
        assert len(runs) == 1
        runs.clear()
        model.score_labels(*arguments[:2], labels=LabelTrie.build(LABELS))
        assert len(runs) == 2


@families
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_in_half_precision_it_trains_and_answers_alike(folders, family, dtype):
    once, each = (made(folders[family], read_by_each_row=each, dtype=dtype) for each in (False, True))
    found = []
    for model in (once, each):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "float32"):
            losses, grads = gradients(model, batch())
            with torch.no_grad():
                model.eval()(*batch())
        found.append((losses, grads))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0.05, atol=0.1)
    assert {gradient.dtype for gradient in found[0][1].values()} == {torch.float32}
    assert all(torch.isfinite(gradient).all() for gradient in found[0][1].values())


def test_recomputing_inside_the_block_reads_as_the_forward_pass_did(folders):
    """A caller may ask for gradients while what acts is still on the model, and before as after another block."""
    found = []
    for checkpointing in (False, True):
        model = made(folders["llama"], "dept+lora", gradient_checkpointing=checkpointing).train()
        ids, mask, labels, features = batch()
        info = model.forward_info(mask, features)
        with model._acting(info):
            joint = model.joint_input(ids, mask, features, info)
            assert joint.num_shared
            model.backbone.logits(joint, labels).float().logsumexp(-1).sum().backward()
        found.append({key: p.grad for key, p in model.named_parameters() if p.requires_grad})
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=1e-4, atol=1e-6)


def test_the_rows_do_not_read_the_prompt_again(folders):
    """The linear maps see m + n t tokens in training, and n t from the second answer on."""
    model = made(folders["llama"], feature_dim=None)
    seen = []
    handle = model.backbone.model.model.layers[0].mlp.register_forward_hook(
        lambda _module, inputs, _output: seen.append(inputs[0].shape[:-1].numel())
    )
    ids, mask, labels, _ = batch()
    m, n, t = model.tuner.num_virtual_tokens, len(ids), ids.shape[1] + labels.shape[1] - 1
    model.train()(ids, mask, labels)
    with torch.no_grad():
        model.eval()(ids, mask, labels)
        model(ids, mask, labels)
    handle.remove()
    assert seen == [m + n * t, m, n * t, n * t]
