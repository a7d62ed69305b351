"""A run asked in Python: what it answers, alone and among many, and what it refuses."""

import gc
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import dept_vl
from dept_vl.data.collator import Example, collate
from dept_vl.data.images import open_image
from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.inference.inputs import read_inputs
from dept_vl.inference.predict import predict_inputs
from dept_vl.runs.folder import read_run_config
from dept_vl.runs.session import Session
from dept_vl.tasks import get_task
from tests.api.saved_runs import save_run
from tests.conftest import WORDS

QUESTIONS = ("what color is the cube ?", "how many ?", "is the small red ball left of the big blue cube ?")
LABELS = ["yes", "no", "red cube", "two"]


def asked(pictures, count=11):
    """Returns questions about pictures, a picture several times, texts of several lengths."""
    return [(pictures[(n * 3) % 5], " ".join(WORDS[n % 4 : n % 4 + 1 + n])) for n in range(count)]


def teacher_forced(run, image, question, label):
    """Returns a label's log-likelihood by the plain way: one forward, a sum over the target's tokens."""
    model = dept_vl.load(run)
    parts = model.parts
    visual = next(iter(parts.visual.values()))
    (ids,) = parts.codec.source_ids([f"vqa: {question}"], 24)
    (target,) = parts.codec.target_ids([label])
    encoder = visual.encoder
    batch = collate([Example(0, ids, target)], parts.codec.pad_token_id)
    with torch.no_grad():
        features = encoder(encoder.preprocess(open_image(image))[None])
        logits = parts.model(batch.input_ids, batch.attention_mask, batch.labels, features).logits
    return logits.log_softmax(-1)[0].gather(1, batch.labels[0][:, None]).sum().item()


def test_answers_are_those_of_dept_vl_predict(vqa_run, pictures, tmp_path):
    pictures[0].save(tmp_path / "a.png")
    config = read_run_config(vqa_run)
    inputs = read_inputs(get_task("vqa"), images=[tmp_path / "a.png"], columns={"question": QUESTIONS[0]})
    (expected,) = predict_inputs(config, vqa_run, inputs, as_scored=True)
    model = dept_vl.load(vqa_run)
    assert model.answer(tmp_path / "a.png", QUESTIONS[0]) == expected.answer
    assert model.answer(image=pictures[0], question=QUESTIONS[0]) == expected.answer


def test_many_are_answered_and_scored_as_one_by_one(vqa_run, pictures):
    model, many = dept_vl.load(vqa_run), asked(pictures)
    alone = [model.answer(*one) for one in many]
    for size in (1, 4, None):
        assert model.answer_many(many, batch_size=size) == alone
    together = model.score_many(many, labels=LABELS)
    assert len({tuple(scores.values()) for scores in together}) == len(many)
    for one, scores in zip(many, together, strict=True):
        assert scores == pytest.approx(model.score(*one, labels=LABELS), abs=1e-5, rel=1e-6)


def test_batches_round_16_bit_features_otherwise_but_answer_as_one_by_one(backbones, tmp_path, pictures):
    """A last bit of few features moves log-likelihoods by up to 5e-5 with the demo's models, as measured."""
    settings = {"model.image_encoder.dtype": "float16"}
    model = dept_vl.load(save_run(tmp_path / "vqa", "vqa", backbones["t5"], **settings))
    visual = next(iter(model.parts.visual.values()))
    together = visual.encode(pictures, model.device)
    alone = torch.cat([visual.encode([picture], model.device) for picture in pictures])
    assert (together != alone).float().mean() < 0.02
    torch.testing.assert_close(together, alone, rtol=2**-10, atol=2e-3)
    many = asked(pictures)
    assert model.answer_many(many) == [model.answer(*one) for one in many]
    for one, scores in zip(many, model.score_many(many, labels=LABELS), strict=True):
        assert scores == pytest.approx(model.score(*one, labels=LABELS), abs=1e-3)


def test_images_are_encoded_in_batches_and_each_is_decoded_only_while_it_is_read(runs, tmp_path):
    size = (61, 47)
    for number in range(10):
        Image.new("RGB", size, (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    model = dept_vl.load(runs / "coco")
    encoder, batches, decoded = next(iter(model.parts.visual.values())).encoder, [], []

    def look(module, args, output):
        batches.append(len(output))
        decoded.append(sum(isinstance(one, Image.Image) and one.size == size for one in gc.get_objects()))

    handle = encoder.register_forward_hook(look)
    model.answer_many([str(tmp_path / f"{number}.png") for number in range(10)], batch_size=4)
    handle.remove()
    assert batches == [4, 4, 2]
    assert max(decoded) <= 1


def test_an_image_asked_about_often_is_opened_and_encoded_once(runs, tmp_path, pictures):
    """The file is taken away after the first of its inputs: a second look would fail."""
    path = tmp_path / "a.png"
    pictures[0].save(path)
    model = dept_vl.load(runs / "vqa")
    encoder = next(iter(model.parts.visual.values())).encoder
    counted = []
    handle = encoder.network.register_forward_hook(lambda *_: counted.append(1))
    handles = [module.register_forward_hook(lambda *_: counted.append(1)) for module in [encoder.network.conv1]]
    model.answer_many([(path, question) for question in QUESTIONS] + [(pictures[1], "how many ?")], batch_size=2)
    for one in (handle, *handles):
        one.remove()
    assert len(counted) == 2


def test_scores_are_teacher_forced_log_likelihoods(vqa_run, pictures):
    scores = dept_vl.load(vqa_run).score(pictures[0], QUESTIONS[0], labels=LABELS)
    assert list(scores) == LABELS
    for label, score in scores.items():
        assert score == pytest.approx(teacher_forced(vqa_run, pictures[0], QUESTIONS[0], label), abs=1e-5)


def test_a_task_with_labels_answers_with_the_likeliest_and_scores_them_by_default(runs):
    model = dept_vl.load(runs / "rte")
    assert (model.task, model.labels, model.takes) == ("rte", ("0", "1"), ("sentence1", "sentence2"))
    pair = {"sentence1": "the red cube is small", "sentence2": "the cube is red"}
    scores = model.score(**pair)
    assert model.answer(**pair) == model.answer(*pair.values()) == max(scores, key=scores.get)
    assert model.answer_many([pair, tuple(pair.values())]) == [model.answer(**pair)] * 2
    shares = model.probabilities(**pair)
    assert sum(shares.values()) == pytest.approx(1)
    assert math.log(shares["0"] / shares["1"]) == pytest.approx(scores["0"] - scores["1"])
    assert dept_vl.load(runs / "cola").answer_many(["the cube", {"sentence": "is red"}])


def test_captions_and_who_gives_none(runs, pictures):
    model = dept_vl.load(runs / "coco")
    assert model.answer_many(pictures) == [model.caption(picture) for picture in pictures]
    assert model.answer_many([np.asarray(pictures[0])]) == [model.caption(pictures[0])]
    with pytest.raises(ConfigError, match="trained on task 'vqa' and not to caption: it takes image, question"):
        dept_vl.load(runs / "vqa").caption(pictures[0])
    with pytest.raises(ConfigError, match="task 'cola' and not to caption: it takes sentence and gives one of its lab"):
        dept_vl.load(runs / "cola").caption(pictures[0])


def test_embeddings_do_not_depend_on_padding_or_batch_mates(vqa_run, pictures):
    model, many = dept_vl.load(vqa_run), asked(pictures)
    together = model.embeddings(many)
    assert (together.dtype, together.shape) == (np.float32, (len(many), 16))
    assert np.abs(together).max() > 0.01
    assert np.linalg.matrix_rank(together) > 5
    for one, vector in zip(many, together, strict=True):
        np.testing.assert_allclose(model.embeddings([one])[0], vector, atol=1e-5)
    assert model.embeddings([]).shape == (0, 16)


def test_an_embedding_is_what_its_description_says(vqa_run, pictures):
    model = dept_vl.load(vqa_run)
    parts = model.parts
    states = []
    t5 = parts.model.backbone.family == "t5"
    inner = parts.model.backbone.model
    norm = parts.model.backbone.places[next(s for s in parts.model.backbone.places if s.part == "norm")].module
    handle = norm.register_forward_hook(lambda module, args, output: states.append(output))
    vector = model.embeddings([(pictures[0], QUESTIONS[0])])[0]
    handle.remove()
    *before, state = states  # a decoder-only model has read the adapter's prompt before
    assert len(before) == (not t5)
    assert inner.training is False
    expected = state[0].mean(0) if t5 else state[0, -1]
    np.testing.assert_allclose(vector, expected.numpy(), atol=1e-6)


def test_an_adapter_embeds_otherwise_than_another(runs, pictures):
    model = dept_vl.load(runs / "vqa")
    own = model.embeddings([(pictures[0], QUESTIONS[0])])
    with model.adapter(runs / "coco"):
        assert not np.allclose(model.embeddings([pictures[0]]), own, atol=1e-3)


def test_in_a_block_another_adapter_answers_on_the_same_frozen_weights(runs, pictures):
    model, texts = dept_vl.load(runs / "vqa"), ["the red cube", "is the ball blue ?"]
    own = model.answer_many(asked(pictures))
    places = {name: p.data_ptr() for name, p in model.parts.model.backbone.model.named_parameters()}
    with model.adapter(runs / "coco") as same:
        assert same is model
        assert (model.task, model.takes) == ("coco", ("image",))
        captions = model.answer_many(pictures)
        with model.adapter(runs / "cola"):
            assert (model.task, model.labels) == ("cola", ("0", "1"))
            scores = model.score_many(texts)
            shared = {name: p.data_ptr() for name, p in model.parts.model.backbone.model.named_parameters()}
            with pytest.raises(ConfigError, match="not taken"):
                model.answer(question="what ?")
        assert model.task == "coco"
        assert model.answer_many(pictures) == captions
    assert model.answer_many(asked(pictures)) == own
    assert shared == places
    assert captions == dept_vl.load(runs / "coco").answer_many(pictures)
    assert scores == dept_vl.load(runs / "cola").score_many(texts)


def test_an_exception_in_the_block_leaves_the_model_as_it_was(runs):
    model = dept_vl.load(runs / "vqa")
    with pytest.raises(ZeroDivisionError), model.adapter(runs / "coco"), model.adapter(runs / "cola"):
        raise ZeroDivisionError
    assert model.task == "vqa"


def test_an_adapter_is_loaded_once(runs, tmp_path):
    copy = save_run(tmp_path / "cola", "cola", read_run_config(runs / "cola").model.backbone, seed=9)
    model = dept_vl.load(runs / "vqa")
    with model.adapter(copy):
        before = model.score("the cube")
    (copy / "adapter_model.safetensors").write_bytes(b"gone")
    with model.adapter(copy):
        assert model.score("the cube") == before


def test_every_method_answers_in_a_block_as_alone(runs, backbones, tmp_path):
    methods = {
        "lora": {}, "prefix-tuning": {}, "bitfit": {}, "fine-tuning": {},
        "dept": {"tuner.num_virtual_tokens": 2, "tuner.budget_tokens": 8, "tuner.allow_nearest": True},
    }  # fmt: skip
    model = dept_vl.load(runs / "vqa")
    for method, settings in methods.items():
        run = save_run(tmp_path / method, "cola", backbones["t5"], **{"tuner.name": method, **settings})
        with model.adapter(run):
            within = model.score_many(["the red cube", "no"])
        assert within == dept_vl.load(run).score_many(["the red cube", "no"]), method


def test_an_adapter_of_another_backbone_or_other_features_is_refused(runs, backbones, save_tiny_t5, tmp_path):
    model = dept_vl.load(runs / "vqa")
    wider = save_run(tmp_path / "wider", "cola", save_tiny_t5(tmp_path / "t5", d_model=32))
    with pytest.raises(
        CheckpointError, match=r"wider: the adapter does not fit: .*d_model: saved for 32, this run has"
    ):
        model.adapter(wider).__enter__()
    other = save_run(tmp_path / "other", "cola", backbones["gpt2"])
    with pytest.raises(CheckpointError, match=r"backbone\.family: saved for 'gpt2', this run has 't5'"):
        model.adapter(other).__enter__()
    pooled = save_run(tmp_path / "pooled", "coco", backbones["t5"], **{"model.image_encoder.pooled_grid": 2})
    with pytest.raises(
        CheckpointError, match=r"pooled: the visual features are not .* pooled_grid: trained on 2, given"
    ):
        model.adapter(pooled).__enter__()
    with pytest.raises(CheckpointError, match="absent: no run here"):
        model.adapter(tmp_path / "absent").__enter__()
    assert model.task == "vqa"


def test_threads_take_turns_and_see_their_own_adapter(runs, backbones, tmp_path):
    """LoRA acts by hooks on the shared modules: two at once would act on each other's numbers."""
    texts = ["the red cube", "is the ball blue ?"] * 4
    names = [
        save_run(tmp_path / f"lora-{n}", "cola", backbones["t5"], seed=n, **{"tuner.name": "lora"}) for n in (1, 2)
    ]
    expected = [dept_vl.load(run).score_many(texts) for run in names]
    model, found = dept_vl.load(runs / "vqa"), {}

    def work(number):
        with model.adapter(names[number % 2]):
            found[number] = [model.score_many(texts, batch_size=2) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.task == "vqa"
    assert all(
        one == pytest.approx(expected[n % 2][i], abs=1e-5) for n in found for r in found[n] for i, one in enumerate(r)
    )
    assert len(found) == 4


def test_models_of_one_session_share_the_frozen_weights(runs):
    session = Session()
    one, other = (dept_vl.load(runs / name, session=session) for name in ("vqa", "coco"))
    assert one.parts.model.backbone is other.parts.model.backbone
    assert one.parts.visual["own images"] is other.parts.visual["own images"]


def test_what_is_missing_or_not_taken_is_said_with_what_the_task_takes(runs, pictures):
    model = dept_vl.load(runs / "vqa")
    cases = [
        (lambda: model.answer(pictures[0]), "the input: task 'vqa' needs a question; give question=.*takes image, que"),
        (lambda: model.answer(question="what ?"), "there is no image; task 'vqa' takes image, question"),
        (lambda: model.answer(pictures[0], "what ?", color="red"), "color is not taken; task 'vqa' takes image, quest"),
        (lambda: model.answer(pictures[0], "a", "b"), "got 3 values; task 'vqa' takes image, question"),
        (lambda: model.answer(pictures[0], "a", question="b"), "question is given twice"),
        (lambda: model.answer_many([(pictures[0], "a"), (pictures[0],)]), r"inputs\[1\]: task 'vqa' needs a question"),
        (lambda: model.answer_many([{"image": pictures[0], "text": "a"}]), r"inputs\[0\]: text is not taken"),
        (
            lambda: model.answer_many([pictures[0]]),
            r"inputs\[0\]: expected a mapping or a tuple, got Image; task 'vqa'",
        ),
        (lambda: model.answer_many("what ?"), "inputs: expected a list of inputs, got one str"),
        (lambda: model.answer_many([(pictures[0], "a")], batch_size=0), "batch_size: should be .*, got 0"),
        (lambda: model.score(pictures[0], "a"), "labels: task 'vqa' has none of its own; give labels="),
        (lambda: model.score(pictures[0], "a", labels=[]), "labels: expected at least one text"),
        (lambda: model.score(pictures[0], "a", labels="yes"), "labels: expected a list of texts, got 'yes'"),
        (lambda: model.score(pictures[0], "a", labels=["yes", "yes"]), "labels: 'yes' is given twice"),
        (lambda: model.score(pictures[0], "a", labels=["xx", "yy"]), "labels: 'xx' has the same tokens as another"),
        (lambda: model.score(pictures[0], "a", labels=["no " * 10_000]), "labels: one has 10,001 tokens; at most 512"),
        (lambda: model.answer("https://a.b/c.png", "a"), "https://a.b/c.png: is an address, and images are not fetche"),
        (lambda: model.answer("data:image/png;base64,AAAA", "a"), "is an address, and images are not fetched"),
        (lambda: model.answer(torch.zeros(3, 4, 4), "a"), "image: expected a path, .*, got Tensor"),
        (lambda: dept_vl.load(runs / "cola").answer(pictures[0]), "column 'sentence' should be a text, found Image"),
    ]
    for call, message in cases:
        with pytest.raises((ConfigError, DataError), match=message):
            call()


def test_a_long_question_is_cut_with_a_warning_or_refused(runs, backbones, pictures, tmp_path, caplog):
    long = "red " * 10_000
    model = dept_vl.load(runs / "vqa")
    assert model.answer(pictures[0], long) == model.answer(pictures[0], "red " * 22)
    assert "vqa: 1 of 1 source texts have more than data.max_source_length=24 tokens; they are truncated" in caplog.text
    strict = save_run(tmp_path / "strict", "vqa", backbones["t5"], **{"data.on_long": "error"})
    with pytest.raises(DataError, match=r"1 of 2 source texts have more than data.max_source_length=24 tokens; raise"):
        dept_vl.load(strict).answer_many([(pictures[0], "red ?"), (pictures[1], long)])


def test_it_says_what_it_is(runs):
    model = dept_vl.load(runs / "vqa")
    assert model.config == replace(read_run_config(runs / "vqa"))
    assert repr(model) == (
        f"Model('{runs / 'vqa'}': task 'vqa', prompt-tuning on {model.config.model.backbone}, "
        f"{model.num_trainable:,} trained parameters, on cpu)"
    )
    assert model.num_trainable == 3 * 16 + 192 * 16 + 16


def test_bf16_and_a_device_are_taken_and_a_wrong_one_is_refused(runs, pictures):
    model = dept_vl.load(runs / "vqa", device="cpu", precision="bf16")
    exact = dept_vl.load(runs / "vqa").score(pictures[0], "a", labels=LABELS)
    rounded = model.score(pictures[0], "a", labels=LABELS)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.1)
    for device in ("tpu", "cuda:99"):
        with pytest.raises(ConfigError, match=f"device: '{device}' cannot be used here: "):
            dept_vl.load(runs / "vqa", device=device)


@pytest.mark.gpu
def test_on_a_gpu_answers_are_those_of_the_cpu(vqa_run, pictures):
    many = asked(pictures)
    on_gpu, on_cpu = (dept_vl.load(vqa_run, device=device) for device in ("cuda", "cpu"))
    for one, other in zip(*(m.score_many(many, labels=LABELS) for m in (on_gpu, on_cpu)), strict=True):
        assert one == pytest.approx(other, abs=1e-2)
    np.testing.assert_allclose(on_gpu.embeddings(many), on_cpu.embeddings(many), atol=1e-2)


def test_images_may_be_given_in_any_form(runs, pictures, tmp_path):
    model = dept_vl.load(runs / "vqa")
    pictures[0].save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    expected = model.score(pictures[0], "a", labels=LABELS)
    forms = [
        tmp_path / "a.png", str(tmp_path / "a.png"), content, bytearray(content), memoryview(content),
        np.asarray(pictures[0]), Image.open(tmp_path / "a.png"), pictures[0].convert("RGBA"),
    ]  # fmt: skip
    assert model.score_many([(form, "a") for form in forms], labels=LABELS) == [pytest.approx(expected, abs=1e-5)] * 8
