"""Runs on one vision-language model, served: they answer as each does alone, with images or without, in one batch."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch

import dept_vl
from dept_vl.cli import main
from dept_vl.errors import DataError
from dept_vl.serving.engine import Engine
from dept_vl.serving.limits import ServeLimits
from dept_vl.serving.page.asking import Asker, Question
from dept_vl.serving.service import Service
from dept_vl.serving.startup import RunReader, read_runs
from tests.api.saved_runs import save_run
from tests.models.vision_language_folders import save_tiny_vlm
from tests.serving.conftest import ask, call, chat, data_uri, no_check, numbers, png, serving

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

DEPT = {"tuner.name": "dept", "tuner.budget_tokens": 11, "tuner.num_virtual_tokens": 4, "tuner.rank": None,
        "tuner.allow_nearest": True}  # fmt: skip
PROMPT = {"tuner.num_virtual_tokens": 4}
QUESTIONS = ("what color is the ball?", "how many?")
PICTURES = (png(1, (28, 40)), png(2, (60, 30)))


@pytest.fixture(scope="module", params=["qwen3_vl", "idefics3", "internvl"])
def runs(request, tmp_path_factory):
    """Two DePT runs and one of prompt tuning about an image, one about a text, one about two images, and LoRA."""
    folder = tmp_path_factory.mktemp(request.param)
    vlm = save_tiny_vlm(request.param, folder / "vlm")
    save_run(folder / "one", "vqa", vlm, seed=1, **DEPT)
    save_run(folder / "two", "vqa", vlm, seed=2, **DEPT)
    save_run(folder / "three", "vqa", vlm, seed=3, **PROMPT)
    save_run(folder / "told", "vqa", vlm, seed=7, **PROMPT)
    save_run(folder / "captions", "coco", vlm, seed=4, **DEPT, **{"data.max_target_length": 6})
    save_run(folder / "lora", "vqa", vlm, seed=5, **{"tuner.name": "lora", "tuner.rank": 2})
    save_run(folder / "pairs", "nlvr2", vlm, seed=6, **PROMPT)
    save_run(folder / "text", "cola", vlm, seed=8, **PROMPT)
    return folder


@pytest.fixture(scope="module")
def port(runs):
    names = ("one", "two", "three", "captions", "lora", "pairs", "text")
    with serving([runs / name for name in names], max_wait_ms=50, max_pixels=100_000) as (_, port):
        yield port


@pytest.fixture(scope="module")
def alone(runs):
    """Each run in Python, loaded once."""
    return cache(lambda name: dept_vl.load(runs / name))


def said(body):
    return body["choices"][0]["message"]["content"]


def test_answers_asked_at_once_are_those_of_each_run_in_python(port, alone):
    names = ("one", "two", "three", "lora")
    asked = [(name, text, picture) for name in names for text in QUESTIONS for picture in PICTURES]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda one: ask(port, *one), asked))
    for (name, text, picture), (status, _, body) in zip(asked, answers, strict=True):
        assert status == 200, body
        assert said(body) == alone(name).answer(picture, text)
    assert len({said(body) for _, _, body in answers}) > len(names)


def test_captions_texts_and_pairs_of_images(port, alone):
    assert said(ask(port, "captions", None, PICTURES[0])[2]) == alone("captions").caption(PICTURES[0])
    assert said(ask(port, "text", "the ball is red")[2]) == alone("text").answer("the ball is red")
    body = chat("pairs", "both are red")
    body["messages"][0]["content"] += [{"type": "image_url", "image_url": {"url": data_uri(one)}} for one in PICTURES]
    own = alone("pairs").answer(list(PICTURES), "both are red")
    assert said(call(port, "POST", "/v1/chat/completions", body)[2]) == own


def test_an_image_is_encoded_once_for_all_adapters(runs):
    with serving([runs / "one", runs / "two"]) as (_, port):
        for name in ("one", "two", "one"):
            assert ask(port, name, QUESTIONS[0], PICTURES[0])[0] == 200
        found = numbers(port)
        assert found["dept_vl_image_cache_misses_total"] == 1
        assert found["dept_vl_image_cache_hits_total"] == 2
        assert ask(port, "one", QUESTIONS[0], PICTURES[1])[0] == 200
        assert numbers(port)["dept_vl_image_cache_misses_total"] == 2


class Recorder:
    """Keeps the batches that are answered."""

    def __init__(self):
        self.batches = []

    def __call__(self, answer):
        def told(rows):
            self.batches.append(list(rows))
            return answer(rows)

        return told


def test_adapters_share_a_batch_whatever_images_their_rows_have(runs, alone):
    recorder = Recorder()
    with serving([runs / "one", runs / "two"], wrap=recorder, max_wait_ms=60_000, max_batch=4) as (_, port):
        asked = [("one", PICTURES[0]), ("two", PICTURES[1]), ("two", PICTURES[0]), ("one", PICTURES[1])]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda one: ask(port, one[0], QUESTIONS[0], one[1]), asked))
    assert [len(batch) for batch in recorder.batches] == [4]
    for (name, picture), (_, _, body) in zip(asked, answers, strict=True):
        assert said(body) == alone(name).answer(picture, QUESTIONS[0])


def opened(runs, *names, **limits):
    found = read_runs([str(runs / name) for name in names], {}, no_check)
    return Service(RunReader({}, no_check), found, ServeLimits(**limits))


def test_logits_of_a_mixed_batch_are_those_of_each_adapter_alone(runs):
    """Rows of two adapters, one with a kept image, one with a new one."""
    service = opened(runs, "one", "two")
    one, two = (service.table.get(name) for name in ("one", "two"))

    def row(adapter, text, picture):
        return adapter.ask_columns({"question": text}, [picture], service.cache, max_pixels=100_000)

    service.queue.submit(row(one, QUESTIONS[0], PICTURES[0])).result(30)
    rows = [
        row(one, QUESTIONS[0], PICTURES[0]),
        row(two, QUESTIONS[1], PICTURES[1]),
        row(two, QUESTIONS[0], PICTURES[0]),
    ]
    assert [one.pictures[0].features is not None for one in rows] == [True, False, True]
    assert len({one.batch_key for one in rows}) == 1
    with torch.no_grad():
        together = _logits(service, rows)
        for number, single in enumerate(rows):
            torch.testing.assert_close(together[number], _logits(service, [single])[0], rtol=0, atol=1e-5)


def _logits(service, rows):
    engine = Engine(service.table.session, service.table.device, service.cache, service.metrics)
    labels = torch.tensor([[5, 6, 7]]).expand(len(rows), -1)
    with engine._joint(rows, engine._batch(rows)) as joint:
        return rows[0].adapter.parts.model.backbone.logits(joint, labels)


def test_rows_with_one_image_with_two_and_with_none_share_a_batch(runs, alone, tmp_path):
    save_run(tmp_path / "facts", "squad", runs / "vlm", seed=9, **PROMPT, **{"data.max_source_length": 24})
    save_run(tmp_path / "scenes", str(_declared_pairs(tmp_path)), runs / "vlm", seed=10, **PROMPT)
    found = read_runs([str(runs / "three"), str(tmp_path / "facts"), str(tmp_path / "scenes")], {}, no_check)
    service = Service(RunReader({}, no_check), found, ServeLimits())
    three, facts, scenes = (service.table.get(run.name) for run in found)
    asked = {"question": QUESTIONS[0]}
    words = {"question": "what is red?", "context": "the ball is red"}
    rows = [
        three.ask_columns(asked, [PICTURES[0]], service.cache, max_pixels=100_000),
        facts.ask_columns(words, [], service.cache, max_pixels=100_000),
        scenes.ask_columns(asked, list(PICTURES), service.cache, max_pixels=100_000),
    ]
    assert len({row.batch_key for row in rows}) == 1
    with torch.no_grad():
        together = _logits(service, rows)
        for number, single in enumerate(rows):
            torch.testing.assert_close(together[number], _logits(service, [single])[0], rtol=0, atol=1e-5)
    answers = [service.queue.submit(row) for row in rows]
    assert answers[0].result(30).text == alone("three").answer(PICTURES[0], QUESTIONS[0])
    assert answers[1].result(30).text == dept_vl.load(tmp_path / "facts").answer(**words)
    assert answers[2].result(30).text == dept_vl.load(tmp_path / "scenes").answer(list(PICTURES), QUESTIONS[0])


def _declared_pairs(folder):
    """A task of one's own whose rows have two images and a question."""
    path = folder / "pairs.yaml"
    path.write_text(
        "{name: pairs, kind: question, image: [left, right], target: answer, template: 'vqa: {question}', "
        "metrics: [exact-match]}"
    )
    return path


def test_the_page_shows_the_likeliest_answers(runs, alone):
    asker = Asker(opened(runs, "one", "two"))
    assert asker.partners("one") == ["two"]
    (asked,) = asker.ask(["one", "two"], [Question({"question": QUESTIONS[0]}, (PICTURES[0],))])
    for name, told in asked.told.items():
        assert told.answer.text == alone(name).answer(PICTURES[0], QUESTIONS[0])
        assert 0 < told.probability <= 1
        assert len(told.answer.likeliest) > 1


def test_the_python_api_changes_adapters_on_one_vision_language_model(runs, alone):
    model = dept_vl.load(runs / "one")
    other = alone("two")
    with model.adapter(runs / "two"):
        assert model.answer(PICTURES[0], QUESTIONS[0]) == other.answer(PICTURES[0], QUESTIONS[0])
        labels = model.score(PICTURES[0], QUESTIONS[0], labels=["red", "two"])
        assert labels == pytest.approx(other.score(PICTURES[0], QUESTIONS[0], labels=["red", "two"]), abs=1e-5)
    assert model.embeddings([(PICTURES[0], QUESTIONS[0])]).shape == (1, 32)


# What is refused


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (("one", "what?"), "0 images; model 'one' (task 'vqa') takes 1 image and the question as text"),
        (("one", "what?", b"GIF89a"), "image_url: "),
        (("one", "what?", png(1, (400, 400))), "image_url: "),
        (("text", "the ball", PICTURES[0]), "1 images; model 'text' (task 'cola') takes no image"),
        (("pairs", "both", PICTURES[0]), "1 images; model 'pairs' (task 'nlvr2') takes 2 images"),
    ],
)
def test_images_that_a_run_does_not_take(port, values, match):
    status, _, body = ask(port, *values)
    assert (status, match in body["error"]["message"]) == (400, True), body


def test_an_image_that_the_processor_refuses(tmp_path):
    vlm = save_tiny_vlm("qwen3_vl", tmp_path / "vlm")
    with serving([save_run(tmp_path / "run", "vqa", vlm, **PROMPT)]) as (_, port):
        status, _, body = ask(port, "run", "what?", png(1, (1, 400)))
        assert (status, body["error"]["code"]) == (400, "invalid_image")
        assert "the backbone's processor refuses an image of 400 x 1 pixels" in body["error"]["message"]


def test_an_image_of_more_tokens_than_the_context(tmp_path):
    """It is refused where it is asked: its batch mates do not wait for it to fail."""
    vlm = save_tiny_vlm("qwen3_vl", tmp_path / "vlm")
    config = json.loads((vlm / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 48
    (vlm / "config.json").write_text(json.dumps(config))
    run = save_run(tmp_path / "run", "vqa", vlm, **PROMPT)
    service = opened(tmp_path, "run")
    adapter = service.table.get("run")
    small = adapter.ask_columns({"question": "what?"}, [png(1, (8, 8))], service.cache, max_pixels=10_000)
    assert service.queue.submit(small).result(30).text == dept_vl.load(run).answer(png(1, (8, 8)), "what?")
    with pytest.raises(DataError, match=r"of them of images.* the backbone has 48"):
        adapter.ask_columns({"question": "what color is it?"}, [png(1, (64, 64))], service.cache, max_pixels=10_000)


def test_runs_of_another_image_encoder_are_not_served_together(capsys, tmp_path):
    folders = [save_tiny_vlm("qwen3_vl", tmp_path / f"vlm-{seed}", seed=seed) for seed in (0, 1)]
    first, second = (save_run(tmp_path / folder.name[-1], "vqa", folder, **PROMPT) for folder in folders)
    assert main(["serve", f"a={first}", f"b={second}"]) == 2
    error = capsys.readouterr().err
    assert "was trained on another backbone than" in error
    assert "image_weights_sha256 " in error
