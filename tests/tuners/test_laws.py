"""What every method promises, on every family: how it starts, what it trains, that its uses agree."""

import copy

import pytest
import torch

from dept_vl.errors import ConfigError
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.families import FAMILIES as KNOWN_FAMILIES
from dept_vl.models.language.families import stored_family
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.load import open_backbone
from dept_vl.tasks import get_task
from dept_vl.tuners.row_embedding import embed_rows
from tests.tuners.adapted import (
    DECODER_ONLY,
    FAMILIES,
    LIKE_LLAMA,
    TASKS,
    S,
    batch,
    fits,
    logits,
    make,
    registered,
    settings,
)

METHODS = [method.name for method in registered()]
STACKS = ["dept+lora", "dept+adapter", "dept+prefix-tuning", "prompt-tuning+bitfit", "dept+fine-tuning"]
PLAIN_PROMPTS = ["prompt-tuning", "p-tuning", "ulpt", "mpt"]
OWN_WORD_EMBEDDINGS = ["adept"]
ONE_OF_A_KIND = ["dept+lora", "dept+adapter", "dept+prefix-tuning", "ia3", "bitfit", "fine-tuning"]
"""What stands for every way to act where a family is as another but inside its modules."""
EVERY_FAMILY = (*FAMILIES, *LIKE_LLAMA)
STARTS_AS_THE_FROZEN_MODEL = ["lora", "ia3", "bitfit", "fine-tuning", "adalora", "dora", "rslora", "vera"]

SIZES = {
    "dept": {"budget_tokens": 12},
    "prompt-tuning": {"num_virtual_tokens": 4},
    "p-tuning": {"num_virtual_tokens": 4, "hidden_size": 10},
    "adept": {"num_virtual_tokens": 4, "rank": 3, "dropout": 0.0},
    "ulpt": {"num_virtual_tokens": 4},
    "attempt": {"num_virtual_tokens": 4, "attention_width": 5, "temperature": 4.0},
    "mpt": {"num_virtual_tokens": 4},
    "lora": {"rank": 3, "dropout": 0.0},
    "adapter": {"bottleneck": 3},
    "adapterdrop": {"layers": [1], "bottleneck": 3},
    "hyperformer": {"bottleneck": 3},
}
"""Where the defaults are larger than the tiny backbones; dropout off, so that uses can be compared."""


def tuner_of(name: str):
    """Settings of a method, or of several as ``dept+lora``, in a size for the tiny backbones."""
    parts = name.split("+")
    if len(parts) == 1:
        return settings(name, **SIZES.get(name, {}))
    return settings(
        name, **{f"parts.{part}.{key}": value for part in parts for key, value in SIZES.get(part, {}).items()}
    )


every_method = pytest.mark.parametrize("name", [*METHODS, *STACKS])


def on_families(*families: str):
    """Every method on every family that it has a place in; on those like Llama one of each kind."""
    pairs = [
        (name, family)
        for name in [*METHODS, *STACKS]
        for family in families
        if fits(tuner_of(name), family) and (family not in LIKE_LLAMA or name in ONE_OF_A_KIND)
    ]
    return pytest.mark.parametrize(("name", "family"), pairs)


def test_every_registered_method_is_among_them():
    missing = {method.name for method in registered(is_installed=False)}
    if missing:
        pytest.skip(f"a package that computes {', '.join(sorted(missing))} is not installed")


def test_every_registered_family_is_among_them(folders):
    found = {open_backbone(ModelConfig(backbone=str(folder)))[0].family for folder in folders.values()}
    assert found == {name for name, family in KNOWN_FAMILIES.items() if not family.reads_images}
    assert set(folders) == set(EVERY_FAMILY)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_config_json_says_what_a_backbone_has_when_it_is_loaded(folders, family):
    backbone, _ = open_backbone(ModelConfig(backbone=str(folders[family])))
    found, stored = stored_family(str(folders[family]))
    assert found.shape(stored) == backbone.tuner_context(S).shape
    assert found.max_positions(stored) == backbone.max_positions


@pytest.mark.parametrize("family", DECODER_ONLY)
@every_method
def test_a_method_without_a_place_in_a_family_is_refused(folders, family, name):
    if fits(tuner_of(name), family):
        make(folders[family], tuner_of(name))
        return
    with pytest.raises(ConfigError, match="acts in an encoder, and the backbone is decoder-only"):
        make(folders[family], tuner_of(name))


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("name", STARTS_AS_THE_FROZEN_MODEL)
def test_it_starts_as_the_frozen_model(folders, family, name):
    frozen = make(folders[family], settings("dept", budget_tokens=1, num_virtual_tokens=0, rank=0, allow_nearest=True))
    assert torch.equal(logits(make(folders[family], tuner_of(name))), logits(frozen))


@on_families(*EVERY_FAMILY)
def test_only_its_groups_train_and_the_loaded_backbone_stays_bit_equal(folders, family, name):
    tuner = tuner_of(name)
    model = make(folders[family], tuner, moved=0.1).train()
    shared = open_backbone(model.config)[0]
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    groups = model.param_groups()
    trained = {id(p) for group in groups for p in group.parameters}
    assert {id(p) for p in model.parameters() if p.requires_grad} == trained
    assert len(trained) == sum(len(group.parameters) for group in groups)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(*batch()).loss_per_example.mean().backward()
        optimizer.step()
    still = [key for key, p in model.named_parameters() if id(p) in trained and torch.equal(p, before[key])]
    # The bias of keys changes nothing (softmax is blind to it), nor does what the batch does not reach.
    assert all(".k" in key or "_k" in key or "lora_a" in key for key in still), still
    for key, parameter in model.named_parameters():
        if id(parameter) not in trained:
            assert parameter.grad is None, key
            assert torch.equal(parameter, before[key]), key
    again = open_backbone(model.config)[0]
    for one, other in zip(shared.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@on_families(*EVERY_FAMILY)
def test_after_its_uses_the_backbone_is_as_it_was(folders, family, name):
    loaded = open_backbone(make(folders[family], tuner_of("dept")).config)
    before = {key: p.clone() for key, p in loaded[0].named_parameters()}
    model = make_on(loaded, tuner_of(name))
    model.train()
    model(*batch()[:3]).loss_per_example.sum().backward()
    model.generate(*batch()[:2], num_beams=2, max_new_tokens=3)
    for module in loaded[0].modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert {key for key, _ in loaded[0].named_parameters()} == set(before)
    for key, parameter in loaded[0].named_parameters():
        assert torch.equal(parameter, before[key]), key
        assert not parameter.requires_grad
        assert parameter.grad is None


def make_on(loaded, tuner):
    tasks = TASKS if tuner.needs_tasks else ()
    return build_model(
        ModelConfig(), tuner, max_source_length=S, feature_dim=None, seed=0, tasks=tasks, backbone=loaded
    )[0]


@on_families(*EVERY_FAMILY)
def test_logits_do_not_depend_on_padding_or_batch_mates(folders, family, name):
    model = make(folders[family], tuner_of(name), moved=0.1)
    ids, mask, labels, features = batch()
    together = logits(model)
    for row, (length, target) in enumerate(zip((6, 3, 1), (4, 2, 3), strict=True)):
        one = slice(row, row + 1)
        alone = logits(model, (ids[one, :length], mask[one, :length], labels[one, :target], features[one]))
        torch.testing.assert_close(together[one, :target], alone, rtol=1e-4, atol=2e-5)


@on_families(*EVERY_FAMILY)
@pytest.mark.parametrize("with_image", [True, False])
def test_greedy_generation_is_a_loop_of_forwards(folders, family, name, with_image):
    model = make(folders[family], tuner_of(name), moved=0.1, feature_dim=6 if with_image else None)
    ids, mask, _, features = batch()
    image = (features,) if with_image else ()
    generated = model.generate(ids, mask, *image, max_new_tokens=4)
    for row in range(3):
        one, tokens = slice(row, row + 1), []
        while len(tokens) < 4 and 1 not in tokens:
            labels = torch.tensor([[*tokens, 0]])
            arguments = (ids[one], mask[one], labels, *(f[one] for f in image))
            tokens.append(int(logits(model, arguments)[0, -1].argmax()))
        assert generated[row, : len(tokens)].tolist() == tokens


@on_families(*EVERY_FAMILY)
def test_labels_are_scored_as_teacher_forced_forwards(folders, family, name):
    model = make(folders[family], tuner_of(name), moved=0.1)
    ids, mask, _, features = batch()
    label_ids = [[5, 6, 1], [5, 7, 8, 1], [9, 1]]
    scores = model.score_labels(ids, mask, features, labels=LabelTrie.build(label_ids))
    for number, label in enumerate(label_ids):
        with torch.no_grad():
            output = model(ids, mask, torch.tensor([label]).expand(3, -1), features)
        torch.testing.assert_close(scores[:, number], -output.loss_per_example * len(label), rtol=1e-4, atol=1e-4)


@on_families("t5", "llama", *LIKE_LLAMA)
def test_beams_find_what_scoring_finds(folders, family, name):
    """With as many beams as there are answers of two tokens, the best of them all comes out."""
    model = make(folders[family], tuner_of(name), moved=0.1)
    ids, mask, _, features = batch()
    every = [[1], *([a, b] for a in range(32) if a != 1 for b in range(32))]
    labels = torch.full((len(every), 2), -100)
    for index, answer in enumerate(every):
        labels[index, : len(answer)] = torch.tensor(answer)
    beams = model.generate(ids, mask, features, num_beams=32, max_new_tokens=2)
    for row in range(3):
        repeated = [tensor[row : row + 1].expand(len(every), *tensor.shape[1:]) for tensor in (ids, mask)]
        with torch.no_grad():
            losses = model(*repeated, labels, features[row : row + 1].expand(len(every), -1, -1)).loss_per_example
        found = [int(token) for token in beams[row, :2]]
        found = found[: found.index(1) + 1] if 1 in found else found
        torch.testing.assert_close(losses[every.index(found)], losses.min(), rtol=1e-3, atol=1e-3)


@on_families(*EVERY_FAMILY)
def test_a_saved_adapter_loads_to_the_same_bits(folders, family, name, tmp_path):
    model = make(folders[family], tuner_of(name), moved=0.1)
    model.save_pretrained(tmp_path, task=get_task("vqa"))
    loaded, _ = load_model(tmp_path, model.config)
    assert loaded.trainable_state().keys() == model.trainable_state().keys()
    assert torch.equal(logits(loaded.eval()), logits(model))
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: dept-vl\n")
    assert all(reference in card for reference in tuner_of(name).references)


@on_families(*FAMILIES)
def test_a_method_that_is_a_plain_prompt_answers_as_prompt_tuning_with_it(folders, family, name):
    model = make(folders[family], tuner_of(name), moved=0.3)
    prompt = model.tuner.as_prompt()
    assert (prompt is not None) == (name in PLAIN_PROMPTS)
    if prompt is not None:
        assert (prompt.dtype, prompt.requires_grad) == (torch.float32, False)
        plain = make(folders[family], settings("prompt-tuning", num_virtual_tokens=len(prompt)))
        with torch.no_grad():
            plain.tuner.soft_prompt.copy_(prompt)
        assert torch.equal(logits(plain), logits(model))


@on_families(*DECODER_ONLY)
def test_a_prompt_that_is_read_once_for_all_rows_is_one_that_each_row_reads(folders, family, name):
    model = make(folders[family], tuner_of(name), moved=0.1)
    found = []
    for _ in range(2):
        found += [model(*batch()).logits, logits(model)]
        model.backbone.reads_once = False
    for other in found[:3]:
        torch.testing.assert_close(other, found[3], rtol=1e-4, atol=2e-5)


@every_method
def test_word_embeddings_of_its_own_leave_the_table_as_it_is(folders, name):
    model = make(folders["t5"], tuner_of(name), moved=0.3)
    table = model.backbone.word_embeddings
    before = table.clone()
    folded = model.tuner.folded_embeddings(table)
    assert (folded is not None) == (name in OWN_WORD_EMBEDDINGS)
    assert torch.equal(table, before)
    if folded is not None:
        assert model.tuner.folded_embeddings(table.bfloat16()).dtype == torch.float32
        ids = torch.tensor([[5, 9, 2]])
        joined = model.tuner.embed(model.backbone.embed_tokens(ids))
        torch.testing.assert_close(joined[:, -3:], folded[ids], rtol=1e-5, atol=1e-6)
        assert model.tuner.prompt() is not None


@on_families("t5", "llama", *LIKE_LLAMA)
def test_gradients_with_recomputed_activations_are_those_without(folders, family, name):
    found = []
    for recompute in (False, True):
        model = make(folders[family], tuner_of(name), moved=0.1, gradient_checkpointing=recompute, dropout_rate=0.0)
        model.train()(*batch()).loss_per_example.mean().backward()
        found.append({key: p.grad for key, p in model.named_parameters() if p.requires_grad})
    for key, gradient in found[0].items():
        torch.testing.assert_close(
            found[1][key], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
        )


@every_method
def test_a_copy_acts_as_it_does_and_shares_no_tensor_with_it(folders, name):
    model = make(folders["t5"], tuner_of(name), moved=0.1)
    before, own = logits(model), model.tuner
    model.tuner = copy.deepcopy(own)
    assert torch.equal(logits(model), before)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.zero_()
    assert torch.equal(logits(model), before)


@every_method
def test_its_own_tensors_alone_learn_eight_rows(folders, name):
    model = make(folders["t5"], tuner_of(name), dropout_rate=0.0).train()
    arguments = batch(lengths=(6, 3, 1, 5, 4, 2, 6, 3), targets=(2, 2, 2, 2, 2, 2, 2, 2))
    own = [p for group in model.param_groups() if group.name != "visual_projection" for p in group.parameters]
    optimizer, losses = torch.optim.AdamW(own, lr=0.1, weight_decay=0.0), []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(model(*arguments).loss_per_example.mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < 0.9 * losses[0].item()


@on_families(*FAMILIES)
def test_a_row_embedding_is_the_whole_method(folders, family, name):
    model = make(folders[family], tuner_of(name), moved=0.3)
    found = model.tuner.row_embedding()
    if found is None:
        assert name not in ("dept", *PLAIN_PROMPTS)
        return
    ids, mask, *_ = batch()
    text, info = model.backbone.embed_source(ids).float(), model.forward_info(mask, None)
    assert not model.tuner.site_hooks()
    assert not model.tuner.extra_keys(info)
    assert model.tuner.side_network() is None
    own = model.tuner.embed(text, info)
    is_read = torch.nn.functional.pad(mask, (own.shape[1] - text.shape[1], 0), value=1).bool()
    torch.testing.assert_close(embed_rows([found] * len(ids), text, info)[is_read], own[is_read])
