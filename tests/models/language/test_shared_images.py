"""Images that rows have in common, read once behind the prompt: the numbers of rows that read all themselves."""

import json

import pytest
import torch

from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.data.image_rows import ImageRows
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.load import load_backbone
from tests.models.vision_language_folders import MAKERS, draw_image, is_readable, save_tiny_vlm
from tests.tuners.adapted import settings

FAMILIES = [
    pytest.param(family, marks=pytest.mark.skipif(not is_readable(family), reason="needs the extra smolvlm"))
    for family in MAKERS
]
READ_BY_EACH_ROW = ("paligemma", "qwen3_5")
S, M = 16, 3
QUESTIONS = ("what color is the ball?", "how many?", "is one red", "no", "how many?", "what is red")
IMAGES = (0, 1, 0, 2, 1, 0)
"""Which images each row has."""

LISTS = (((40, 28),), ((24, 24), (12, 30)), ((40, 28),))
"""Sizes of the images in each list: the last list has another image than the first."""

METHODS = {
    "dept": {"num_virtual_tokens": M, "rank": 2, "budget_tokens": 6},
    "lora": {"rank": 2, "dropout": 0.0},
    "dept+lora": {
        "parts.dept.num_virtual_tokens": M, "parts.dept.rank": 2, "parts.dept.budget_tokens": 6, "parts.lora.rank": 2,
        "parts.lora.dropout": 0.0,
    },
    "dept+prefix-tuning": {
        "parts.dept.num_virtual_tokens": M, "parts.dept.rank": 2, "parts.dept.budget_tokens": 6,
        "parts.prefix-tuning.prefix_length": 2,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    folder = save_tiny_vlm(request.param, tmp_path_factory.mktemp(request.param))
    widen(folder, 512)
    return folder


def widen(folder, window):
    """Gives blocks with a window a wider one."""
    config = json.loads((folder / "config.json").read_text())
    if config["text_config"].get("sliding_window"):
        config["text_config"]["sliding_window"] = window
        (folder / "config.json").write_text(json.dumps(config))


def make(folder, name="dept", *, checkpointing=False):
    """A model moved from its start, and its codec."""
    backbone = load_backbone(str(folder), gradient_checkpointing=checkpointing)
    model, codec = build_model(
        ModelConfig(backbone=str(folder)), settings(name, **METHODS[name]), max_source_length=S, feature_dim=None,
        seed=0, backbone=backbone,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for group in model.param_groups():
            for parameter in group.parameters:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval(), codec


def padded(rows, fill):
    padded = torch.full((len(rows), max(map(len, rows))), fill)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = torch.tensor(row)
    return padded


def batch(model, codec, images=IMAGES, questions=QUESTIONS):
    """Ids, mask, labels and images; a row's images are None for a text alone."""
    process = model.backbone.image_processing()
    lists = [
        tuple(process(draw_image(*size, seed=10 * place + number)) for number, size in enumerate(sizes))
        for place, sizes in enumerate(LISTS)
    ]
    with torch.no_grad():
        records = model.backbone.records(ImageRows(tuple(lists)))
    ids = codec.source_ids(list(questions), S)
    answers = codec.target_ids(["red", "two cubes", "no", "yes", "blue", "a ball"][: len(ids)])
    mask = padded([[1] * len(row) for row in ids], 0)
    rows = ImageRows(tuple(() if place is None else records[place] for place in images))
    return padded(ids, 0), mask, padded(answers, IGNORE_INDEX), rows


def before(model, arguments):
    """The segments before the rows of a batch, as (sequences, length)."""
    ids, mask, _, images = arguments
    info = model.forward_info(mask, images)
    with model._acting(info):
        divided = model.joint_input(ids, mask, images, info).divided
    return [] if divided is None else [tuple(segment.embeds.shape[:2]) for segment in divided.before]


def gradients(model, arguments):
    losses = model.train()(*arguments).loss_per_example
    losses.mean().backward()
    found = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}
    model.zero_grad()
    model.eval()
    return losses.detach(), found


def assert_same_gradients(model, arguments, monkeypatch):
    losses, found = gradients(model, arguments)
    with monkeypatch.context() as patch:
        patch.setattr(model.backbone, "reads_once", False)
        expected_losses, expected = gradients(model, arguments)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=0)
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for key, gradient in expected.items():
        error = (found[key] - gradient).norm()
        assert error <= 1e-5 * gradient.norm() + 1e-8 * largest, (key, error, gradient.norm())


def is_shared(model):
    return model.backbone.family not in READ_BY_EACH_ROW


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "recomputed"])
def test_loss_and_gradients_are_those_of_rows_that_read_all(folder, name, checkpointing, monkeypatch):
    """The language model computes in float64."""
    model, codec = make(folder, name, checkpointing=checkpointing)
    arguments = batch(model, codec)
    model.backbone.model.double()
    counts = [sequences for sequences, _ in before(model, arguments)]
    assert counts == ([1, 3] if is_shared(model) else [])
    assert_same_gradients(model, arguments, monkeypatch)


@pytest.mark.parametrize("images", [(0, 0, 0), (2, 0, 1), (1, 1, 0), (None, None, None)], ids=str)
def test_rows_of_one_image_of_images_of_their_own_and_of_none(folder, images, monkeypatch):
    model, codec = make(folder)
    arguments = batch(model, codec, images, QUESTIONS[:3])
    model.backbone.model.double()
    lists = len({place for place in images if place is not None})
    expected = [1, *([lists] if lists else [])]
    assert [sequences for sequences, _ in before(model, arguments)] == (expected if is_shared(model) else [])
    assert_same_gradients(model, arguments, monkeypatch)


def test_rows_without_images_among_others(folder, monkeypatch):
    """They read the prompt alone before them, where the template begins alike with and without an image."""
    model, codec = make(folder)
    arguments = batch(model, codec, (0, None, 0), QUESTIONS[:3])
    model.backbone.model.double()
    begins_alike = codec.frame.head == codec.frame.text_head
    assert len(before(model, arguments)) == (2 if is_shared(model) and begins_alike else 0)
    assert_same_gradients(model, arguments, monkeypatch)


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_answers_are_those_of_rows_that_read_all(folder, name, monkeypatch):
    model, codec = make(folder, name)
    ids, mask, _, images = batch(model, codec)
    trie = LabelTrie.build(codec.target_ids(["red", "red cubes", "two", "two balls", "no"]))

    def answers():
        generated = [model.generate(ids, mask, images, num_beams=beams, max_new_tokens=5) for beams in (1, 3)]
        scored = model.score_labels(ids, mask, images, labels=trie), model.embed(ids, mask, images)
        return generated, scored

    assert bool(before(model, (ids, mask, None, images))) == is_shared(model)
    once = [answers() for _ in range(2)]  # the second time from what was kept
    monkeypatch.setattr(model.backbone, "reads_once", False)
    generated, scored = answers()
    for found_ids, found_numbers in once:
        for one, other in zip(found_ids, generated, strict=True):
            assert torch.equal(one, other)
        for one, other in zip(found_numbers, scored, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_every_token_before_the_rows_is_read_once_and_the_prompt_once_an_adapter(folder):
    model, codec = make(folder)
    ids, mask, _, images = batch(model, codec)
    trie = LabelTrie.build(codec.target_ids(["red", "no"]))
    if not is_shared(model):
        assert before(model, (ids, mask, None, images)) == []
        return
    (_, first), (lists, longest) = before(model, (ids, mask, None, images))
    rows = ids.shape[1] + len(codec.frame.tail) + len(trie.tokens)
    seen = []
    handle = model.backbone._text_model.layers[0].mlp.register_forward_hook(
        lambda _module, inputs, _output: seen.append(inputs[0].shape[:-1].numel())
    )
    for _ in range(2):
        model.score_labels(ids, mask, images, labels=trie)
    handle.remove()
    assert seen == [first, lists * longest, len(ids) * rows, lists * longest, len(ids) * rows]


@torch.no_grad()
def test_one_question_reads_the_kept_prompt(folder):
    model, codec = make(folder)
    arguments = batch(model, codec, (1,), QUESTIONS[:1])
    assert len(before(model, arguments)) == (2 if is_shared(model) else 0)
    with torch.enable_grad():
        assert before(model, arguments) == []  # in training nothing is saved


@pytest.mark.parametrize("window", ["all", "source", "less"])
def test_a_window_that_ends_before_the_rows_do_is_left_to_each_row(tmp_path, window, monkeypatch):
    """Gemma 3: every other block reads no further back."""
    folder = save_tiny_vlm("gemma3", tmp_path / "gemma3")
    longest = 44
    widen(folder, {"all": 200, "source": longest + 1, "less": 8}[window])
    model, codec = make(folder)
    arguments = ids, mask, _, images = batch(model, codec)
    joint = model.joint_input(ids, mask, images)
    assert joint.kinds.shape[1] == longest
    reads = [model.backbone._as_read(joint, more) is not joint for more in (0, 1, 2)]
    assert reads == {"all": [True] * 3, "source": [True, True, False], "less": [False] * 3}[window]
    with torch.no_grad():
        found = model(*arguments).logits, model.generate(ids, mask, images, max_new_tokens=4)
        monkeypatch.setattr(model.backbone, "reads_once", False)
        torch.testing.assert_close(found[0], model(*arguments).logits, rtol=1e-4, atol=1e-5)
        assert torch.equal(found[1], model.generate(ids, mask, images, max_new_tokens=4))


@torch.no_grad()
def test_with_a_share_of_the_weights_every_row_reads_all_where_nothing_is_trained(folder, monkeypatch):
    """Processes would run the model more or less often, by whether their rows have images."""
    model, codec = make(folder)
    monkeypatch.setattr(model.backbone, "is_sharded", True)
    assert before(model, batch(model, codec)) == []
    with torch.enable_grad():
        assert bool(before(model, batch(model, codec))) == is_shared(model)
