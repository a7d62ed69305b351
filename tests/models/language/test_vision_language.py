"""Every family of vision-language models against transformers' own way with the same tokens and pixels."""

import math

import pytest
import torch
import transformers
from packaging.version import Version
from torch.nn.functional import pad

from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.data.image_rows import ImageRows, ProcessedImage
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.folding import fold, write_into
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.load import load_backbone
from dept_vl.models.language.vision_language import Kind
from dept_vl.serving.mixed import mixable, mixed_joint_input
from tests.models.vision_language_folders import MAKERS, draw_image, is_readable, save_tiny_vlm
from tests.tuners.adapted import settings

FAMILIES = [
    pytest.param(family, marks=pytest.mark.skipif(not is_readable(family), reason="needs the extra smolvlm"))
    for family in MAKERS
]
S, M = 16, 3
DEPT = settings("dept", num_virtual_tokens=M, rank=2, budget_tokens=6)
PROMPT = settings("prompt-tuning", num_virtual_tokens=M)
QUESTIONS = ("what color is the ball?", "how many?", "is one red")
SIZES = (((40, 28),), (), ((12, 30), (40, 24)))
"""The images of three rows: one, none, and two."""

MIXES_TILES = Version(transformers.__version__) < Version("5.20")
"""Whether transformers' own beam search puts the images of a row, or the tiles of an image, in another order."""


def exact(model):
    """Tolerances; a linear attention adds up in blocks, which padding shifts: plain Qwen3.5 then differs too."""
    return {"rtol": 1e-4, "atol": 1e-5 if model.backbone.layout.linear_parts is None else 2e-4}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return save_tiny_vlm(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def loaded(folder):
    return load_backbone(str(folder))


def make(folder, loaded, tuner=DEPT, moved=0.1, **options):
    """A model whose tuner is moved from its start."""
    config = ModelConfig(backbone=str(folder), **options)
    model, codec = build_model(config, tuner, max_source_length=S, feature_dim=None, seed=0, backbone=loaded)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for group in model.param_groups():
            for parameter in group.parameters:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * moved)
    return model.eval(), codec


def texts(codec, questions=QUESTIONS):
    rows = codec.source_ids(list(questions), S)
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
    return ids, mask


def pictures(model, sizes=SIZES):
    process = model.backbone.image_processing()
    return ImageRows(
        tuple(
            tuple(process(draw_image(*size, seed=10 * row + number)) for number, size in enumerate(sizes[row]))
            for row in range(len(sizes))
        )
    )


def targets(codec, answers=("red", "two cubes", "no")):
    rows = codec.target_ids(list(answers))
    labels = torch.full((len(rows), max(map(len, rows))), IGNORE_INDEX)
    for number, row in enumerate(rows):
        labels[number, : len(row)] = torch.tensor(row)
    return labels


def inserted(model, codec, row, ids, mask, images, prompt_ids):
    """What transformers' own model reads of one row, the prompt's places filled with ordinary tokens."""
    frame, pictures = codec.frame, images.rows[row]
    pieces = [*(frame.head if pictures else frame.text_head), *prompt_ids]
    for picture in pictures:
        pieces += picture.ids.tolist()
    pieces += [*(frame.between if pictures else ()), *ids[row][mask[row].bool()].tolist(), *frame.tail]
    read = {"input_ids": torch.tensor([pieces])}
    if pictures:
        dim = model.backbone.layout.image_dim
        read |= {
            name: torch.cat(filled_up([one.tensors[name] for one in pictures], dim), dim=dim)
            for name in pictures[0].tensors
        }
    return read


def filled_up(tensors, dim):
    """Tiles of images with fewer of them filled up with zeros, as LLaVA-OneVision's processor does."""
    if tensors[0].ndim != 5 or dim != 0:
        return tensors
    most = max(tensor.shape[1] for tensor in tensors)
    return [pad(tensor, (0, 0, 0, 0, 0, 0, 0, most - tensor.shape[1])) for tensor in tensors]


def extras(model, ids, target=0):
    """What a processor gives beside ids and pixels, by its own rules."""
    image = model.backbone.image_token_id
    layout = model.backbone.layout
    read = {"attention_mask": torch.ones_like(ids)}
    if layout.has_grid_positions:
        read["mm_token_type_ids"] = (ids == image).int()
    if layout.token_types == "image":
        read["token_type_ids"] = (ids == image).long()
    if layout.token_types == "target":
        read["token_type_ids"] = (torch.arange(ids.shape[1]) >= ids.shape[1] - target).long()[None]
    return read


@torch.no_grad()
def test_a_prompt_of_real_tokens_is_the_model_with_those_tokens_inserted(folder, loaded):
    model, codec = make(folder, loaded, PROMPT)
    prompt_ids = [20, 50, 90]
    model.tuner.soft_prompt.copy_(model.backbone.embed_tokens(torch.tensor(prompt_ids)))
    (ids, mask), images, labels = texts(codec), pictures(model), targets(codec)
    ours = model(ids, mask, labels, images).logits
    for row in range(len(ids)):
        read = inserted(model, codec, row, ids, mask, images, prompt_ids)
        own = labels[row][labels[row] != IGNORE_INDEX]
        read["input_ids"] = torch.cat([read["input_ids"], own[None, :-1]], dim=1)
        theirs = model.backbone.model(**read, **extras(model, read["input_ids"], len(own) - 1)).logits[0, -len(own) :]
        torch.testing.assert_close(ours[row, : len(own)], theirs, **exact(model))


@torch.no_grad()
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_is_that_of_the_model_with_those_tokens_inserted(folder, loaded, num_beams):
    model, codec = make(folder, loaded, PROMPT)
    prompt_ids = [20, 50, 90]
    model.tuner.soft_prompt.copy_(model.backbone.embed_tokens(torch.tensor(prompt_ids)))
    (ids, mask), images = texts(codec), pictures(model)
    ours = model.generate(ids, mask, images, num_beams=num_beams, max_new_tokens=6)
    for row in range(len(ids)):
        if num_beams > 1 and images.rows[row] and MIXES_TILES:
            one = slice(row, row + 1)
            alone = model.generate(ids[one], mask[one], images[one], num_beams=num_beams, max_new_tokens=6)[0]
            assert ours[row, : len(alone)].tolist() == alone.tolist()
            continue
        read = inserted(model, codec, row, ids, mask, images, prompt_ids)
        config = model.backbone.generation_config(num_beams=num_beams, max_new_tokens=6, do_sample=False)
        theirs = model.backbone.model.generate(**read, **extras(model, read["input_ids"]), generation_config=config)
        theirs = theirs[0, read["input_ids"].shape[1] :]
        assert ours[row, : len(theirs)].tolist() == theirs.tolist()


@torch.no_grad()
def test_images_encoded_before_are_read_as_pixels_are(folder, loaded):
    model, codec = make(folder, loaded)
    (ids, mask), images, labels = texts(codec), pictures(model), targets(codec)
    records = ImageRows(model.backbone.records(images))
    torch.testing.assert_close(
        model(ids, mask, labels, records).logits, model(ids, mask, labels, images).logits, rtol=0, atol=0
    )
    assert not any(isinstance(one, ProcessedImage) for one in records)
    unseen = model(ids, mask, labels, images.unseen()).logits
    torch.testing.assert_close(unseen, model(ids, mask, labels, records.unseen()).logits, rtol=0, atol=0)
    assert not torch.allclose(unseen[0], model(ids, mask, labels, records).logits[0])
    torch.testing.assert_close(unseen[1], model(ids, mask, labels, records).logits[1], **exact(model))


@torch.no_grad()
def test_prompt_and_update_are_at_the_users_places_alone(folder, loaded):
    model, codec = make(folder, loaded)
    (ids, mask), images = texts(codec), pictures(model)
    joint = model.joint_input(ids, mask, images)
    plain = model.backbone.embed_tokens(joint.input_ids.where(joint.kinds != Kind.IMAGE, 0))
    for row in range(len(ids)):
        kinds, embeds = joint.kinds[row], joint.inputs_embeds[row]
        length = int(mask[row].sum())
        update = model.tuner.embed(torch.zeros(1, length, model.backbone.d_model))[0]
        torch.testing.assert_close(embeds[kinds == Kind.PROMPT], update[:M])
        is_text = kinds == Kind.TEXT
        torch.testing.assert_close(embeds[is_text] - plain[row][is_text], update[M:], **exact(model))
        assert joint.input_ids[row][is_text].tolist() == ids[row][:length].tolist()
        is_template = kinds == Kind.TEMPLATE
        torch.testing.assert_close(embeds[is_template], plain[row][is_template])
        order = [int(kind) for kind in kinds.unique_consecutive() if kind not in (Kind.PAD, Kind.TEMPLATE)]
        assert order == [Kind.PROMPT, *([Kind.IMAGE] if Kind.IMAGE in kinds else []), Kind.TEXT] or Kind.IMAGE in order
        assert order[0] == Kind.PROMPT
        assert order[-1] == Kind.TEXT


@torch.no_grad()
@pytest.mark.parametrize("name", ["dept", "lora", "ia3", "adapter", "dept+lora", "prefix-tuning"])
def test_logits_depend_neither_on_padding_nor_on_batch_mates(folder, loaded, name):
    model, codec = make(folder, loaded, tuner_of(name))
    (ids, mask), images, labels = texts(codec), pictures(model), targets(codec)
    together = model(ids, mask, labels, images).logits
    for row in range(len(ids)):
        length, size = int(mask[row].sum()), int((labels[row] != IGNORE_INDEX).sum())
        one = slice(row, row + 1)
        alone = model(ids[one, :length], mask[one, :length], labels[one, :size], images[one]).logits
        torch.testing.assert_close(together[row, :size], alone[0], **exact(model))


def tuner_of(name):
    sizes = {
        "dept": {"num_virtual_tokens": M, "rank": 2, "budget_tokens": 6},
        "lora": {"rank": 2, "dropout": 0.0},
        "adapter": {"bottleneck": 3},
        "prefix-tuning": {"prefix_length": M},
    }
    parts = name.split("+")
    if len(parts) == 1:
        return settings(name, **sizes.get(name, {}))
    return settings(
        name, **{f"parts.{part}.{key}": value for part in parts for key, value in sizes.get(part, {}).items()}
    )


@torch.no_grad()
@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_a_linear_method_is_the_plain_model_with_other_weights(folder, loaded, name):
    """What LoRA and (IA)3 do at their places, with images, is what transformers' own model does with theirs folded."""
    model, codec = make(folder, loaded, tuner_of(name))
    plain = write_into(model.backbone, fold(model)).model
    (ids, mask), images, labels = texts(codec), pictures(model), targets(codec)
    ours, untouched = (
        one(ids, mask, labels, images).logits for one in (model, make(folder, loaded, tuner_of(name), 0.0)[0])
    )
    for row in range(len(ids)):
        read = inserted(model, codec, row, ids, mask, images, [])
        own = labels[row][labels[row] != IGNORE_INDEX]
        read["input_ids"] = torch.cat([read["input_ids"], own[None, :-1]], dim=1)
        theirs = plain(**read, **extras(model, read["input_ids"], len(own) - 1)).logits[0, -len(own) :]
        torch.testing.assert_close(ours[row, : len(own)], theirs, **exact(model))
        assert not torch.allclose(untouched[row, : len(own)], theirs, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["dept", "lora", "ia3", "adapter", "dept+lora"])
def test_greedy_generation_is_a_loop_of_forwards(folder, loaded, name):
    model, codec = make(folder, loaded, tuner_of(name))
    (ids, mask), images = texts(codec), pictures(model)
    ours = model.generate(ids, mask, images, max_new_tokens=5)
    said = torch.zeros(len(ids), 0, dtype=torch.long)
    for _ in range(ours.shape[1]):
        labels = torch.cat([said, torch.zeros(len(ids), 1, dtype=torch.long)], dim=1)
        said = torch.cat([said, model(ids, mask, labels, images).logits[:, -1:].argmax(dim=-1)], dim=1)
    for row, loop in zip(ours.tolist(), said.tolist(), strict=True):
        end = row.index(codec.tokenizer.eos_token_id) + 1 if codec.tokenizer.eos_token_id in row else len(row)
        assert row[:end] == loop[:end]


@torch.no_grad()
@pytest.mark.parametrize("name", ["dept", "lora", "adapter", "dept+lora"])
def test_labels_are_scored_as_teacher_forced_forwards(folder, loaded, name):
    model, codec = make(folder, loaded, tuner_of(name))
    (ids, mask), images = texts(codec), pictures(model)
    labels = codec.target_ids(["red", "red cubes", "two", "two balls", "no"])
    scores = model.score_labels(ids, mask, images, labels=LabelTrie.build(labels))
    for number, label in enumerate(labels):
        target = torch.tensor(label).expand(len(ids), -1)
        logs = model(ids, mask, target, images).logits.log_softmax(dim=-1)
        expected = logs.gather(2, target[:, :, None]).sum(dim=(1, 2))
        torch.testing.assert_close(scores[:, number], expected, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_rows_of_two_adapters_in_one_batch_are_as_each_adapter_alone(folder, loaded):
    first, codec = make(folder, loaded)
    second, _ = make(folder, loaded, moved=0.3)
    (ids, mask), images, labels = texts(codec), pictures(first), targets(codec)
    owners = (first, second, second)
    kept = ImageRows(first.backbone.records(images))
    joint = mixed_joint_input([mixable(owner) for owner in owners], ids, mask, kept)
    together = first.backbone.logits(joint, labels)
    generated = first.backbone.generate(joint, num_beams=1, max_new_tokens=4)
    for row, owner in enumerate(owners):
        one = (ids[row : row + 1], mask[row : row + 1])
        alone = owner(*one, labels[row : row + 1], images[row : row + 1]).logits
        torch.testing.assert_close(together[row], alone[0], **exact(first))
        answer = owner.generate(*one, images[row : row + 1], max_new_tokens=4)[0]
        assert generated[row, : len(answer)].tolist() == answer.tolist()


def test_training_changes_the_adapter_alone(folder, loaded):
    model, codec = make(folder, loaded)
    frozen = {name: value.clone() for name, value in model.backbone.model.state_dict().items()}
    (ids, mask), images, labels = texts(codec), pictures(model), targets(codec)
    optimiser = torch.optim.SGD([p for group in model.param_groups() for p in group.parameters], lr=0.1)
    losses = []
    model.train()
    for _ in range(3):
        optimiser.zero_grad()
        loss = model(ids, mask, labels, images).loss_per_example.mean()
        loss.backward()
        losses.append(float(loss))
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for g in model.param_groups() for p in g.parameters)
        optimiser.step()
    assert losses[2] < losses[0]
    for name, value in model.backbone.model.state_dict().items():
        assert torch.equal(value, frozen[name]), name
    rows, width = S, model.backbone.d_model
    counted = sum(p.numel() for group in model.param_groups() for p in group.parameters)
    assert counted == M * width + (rows + width) * 2


def test_a_trained_connector_has_the_gradients_of_the_plain_model_and_nothing_else_moves(folder, loaded):
    model, codec = make(folder, loaded, PROMPT, moved=0.0, train_connector=True)
    (connector,) = (group.parameters for group in model.param_groups() if group.name == "connector")
    names = {name for name, p in model.backbone.model.named_parameters() if p.requires_grad}
    assert len(names) == len(connector) > 0
    assert names <= model.backbone.image_parameters()
    assert model.backbone.image_weights_sha256 == loaded[0].image_weights_sha256
    prompt_ids = [20, 50, 90]
    with torch.no_grad():
        model.tuner.soft_prompt.copy_(model.backbone.embed_tokens(torch.tensor(prompt_ids)))
    (ids, mask), images, labels = texts(codec), pictures(model), targets(codec)
    model.train()
    ours = torch.autograd.grad(model(ids[:1], mask[:1], labels[:1], images[:1]).loss_per_example.sum(), connector)
    read = inserted(model, codec, 0, ids, mask, images, prompt_ids)
    own = labels[0][labels[0] != IGNORE_INDEX]
    read["input_ids"] = torch.cat([read["input_ids"], own[None, :-1]], dim=1)
    theirs = model.backbone.model(**read, **extras(model, read["input_ids"], len(own) - 1)).logits[0, -len(own) :]
    expected = torch.autograd.grad(torch.nn.functional.cross_entropy(theirs, own), connector)
    for name, one, other in zip(sorted(names), ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()) + 1e-7, msg=name)
    assert any(float(other.abs().sum()) > 0 for other in expected)
    before = {name: value.clone() for name, value in model.backbone.model.state_dict().items()}
    optimiser = torch.optim.SGD([p for group in model.param_groups() for p in group.parameters], lr=0.01)
    model(ids, mask, labels, images).loss_per_example.mean().backward()
    optimiser.step()
    after = model.backbone.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert 0 < len(changed & names) == len(changed)
    shared = loaded[0].model.state_dict()
    assert all(torch.equal(shared[name], before[name]) for name in shared)


def test_recomputed_activations_give_the_same_gradients(folder):
    found = []
    for checkpointing in (False, True):
        loaded = load_backbone(str(folder), gradient_checkpointing=checkpointing)
        model, codec = make(folder, loaded, tuner_of("dept+lora"))
        (ids, mask), images, labels = texts(codec), pictures(model), targets(codec)
        model.train()
        model(ids, mask, labels, images).loss_per_example.sum().backward()
        found.append([p.grad for group in model.param_groups() for p in group.parameters])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_an_adapter_holds_the_tuner_alone_and_comes_back(folder, loaded, tmp_path):
    model, codec = make(folder, loaded)
    model.save_pretrained(tmp_path)
    again, other = load_model(tmp_path, ModelConfig(backbone=str(folder)), backbone=loaded)
    assert {name.partition(".")[0] for name in model.adapter_state()} == {"tuner"}
    assert other.frame == codec.frame
    (ids, mask), images, labels = texts(codec), pictures(model), targets(codec)
    torch.testing.assert_close(
        again(ids, mask, labels, images).logits, model(ids, mask, labels, images).logits, rtol=0, atol=0
    )


@torch.no_grad()
def test_a_vector_of_a_source_is_its_last_state(folder, loaded):
    model, codec = make(folder, loaded)
    (ids, mask), images = texts(codec), pictures(model)
    vectors = model.embed(ids, mask, images)
    joint = model.joint_input(ids, mask, images)
    logits = model.backbone.logits(joint, torch.zeros(len(ids), 1, dtype=torch.long))[:, 0]
    own = model.backbone.model.lm_head(vectors)
    cap = getattr(model.backbone.text_config(model.backbone.model.config), "final_logit_softcapping", None)
    capped = own if cap is None else cap * torch.tanh(own / cap)  # PaliGemma: not in earlier releases of transformers
    assert any(torch.allclose(one, logits, **exact(model)) for one in (own, capped))


@torch.no_grad()
@pytest.mark.parametrize("reads_once", [True, False])
def test_the_output_matrix_is_not_copied_for_every_row(folder, loaded, monkeypatch, reads_once):
    """torch multiplies a copy of the matrix for each row of a slice."""
    model, codec = make(folder, loaded)
    monkeypatch.setattr(model.backbone, "reads_once", reads_once)
    (ids, mask), images = texts(codec), pictures(model)
    seen = []
    handle = model.backbone.model.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(ids, mask, targets(codec), images)
    model.generate(ids, mask, images, max_new_tokens=2)
    model.score_labels(ids, mask, images, labels=LabelTrie.build(codec.target_ids(["red", "no"])))
    handle.remove()
    assert len(seen) >= 4
    assert all(states.is_contiguous() for states in seen)


def test_a_users_text_that_says_an_image_token_is_text(folder, loaded):
    model, codec = make(folder, loaded)
    word = codec.tokenizer.convert_ids_to_tokens(model.backbone.image_token_id)
    (ids, mask), images = texts(codec, (f"is {word} red?", "how many?", "no")), pictures(model)
    assert model.backbone.image_token_id in ids[0].tolist()
    joint = model.joint_input(ids, mask, images)
    assert int((joint.kinds[0] == Kind.TEXT).sum()) == int(mask[0].sum())
    assert math.isfinite(float(model(ids, mask, targets(codec), images).loss_per_example.sum()))
    assert model.generate(ids, mask, images, max_new_tokens=3).shape[0] == len(ids)


def test_the_tower_stays_in_evaluation_mode(loaded):
    backbone, _ = loaded
    backbone.train()
    text = set(backbone._text_model.modules())
    others = [module for module in backbone.model.base_model.modules() if module not in text]
    assert not any(module.training for module in others if module is not backbone.model.base_model)
    assert all(module.training for module in text)
    backbone.eval()


@torch.no_grad()
def test_image_encoder_and_connector_are_told_apart_by_every_tensor_and_not_by_precision(folder, loaded):
    backbone = loaded[0]
    half, _ = load_backbone(str(folder), dtype=torch.bfloat16)
    assert half.image_weights_sha256 == backbone.image_weights_sha256
    assert half.weights_sha256 == backbone.weights_sha256
    text = {id(parameter) for parameter in half._text_model.parameters()}
    for name, parameter in half.model.base_model.named_parameters():
        before = half.image_weights_sha256
        half.__dict__.pop("image_weights_sha256")
        parameter.view(-1)[0] += 1
        assert (half.image_weights_sha256 == before) == (id(parameter) in text), name


@torch.no_grad()
def test_weights_in_bfloat16_give_nearly_the_same(folder, loaded):
    model, codec = make(folder, loaded)
    half, _ = make(folder, load_backbone(str(folder), dtype=torch.bfloat16), dtype="bfloat16")
    (ids, mask), images, labels = texts(codec), pictures(model), targets(codec)
    ours, theirs = half(ids, mask, labels, images).logits, model(ids, mask, labels, images).logits
    assert ours.dtype == torch.bfloat16
    assert torch.corrcoef(torch.stack([ours.float().flatten(), theirs.flatten()]))[0, 1] > 0.97
    assert half.generate(ids, mask, images, max_new_tokens=3).shape[0] == len(ids)
