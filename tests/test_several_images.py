"""Rows of several images on the whole way: NLVR2 in its official files, prepared, cached, trained, scored and asked."""

import json
from collections import defaultdict

import pytest
import torch
from PIL import Image

import dept_vl
from dept_vl.cli import main
from dept_vl.data.dataset import TaskDataset
from dept_vl.data.features import FeatureStore
from dept_vl.data.manifest import open_split
from dept_vl.data.sampler import BatchRequest
from dept_vl.data.visual import CachedFeatures, ZeroFeatures
from dept_vl.errors import ConfigError
from dept_vl.inference.answer import Answerer
from dept_vl.runs.open import open_run
from dept_vl.runs.session import Session
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task
from tests.api.saved_runs import save_run
from tests.data_prep.official_files import SENTENCES, write_nlvr2

TASK = get_task("nlvr2")
LENGTHS = {"max_source_length": 32, "max_target_length": 8, "seed": 0}


def run(words, capsys):
    assert main(words) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Official files, prepared, cached, and a run of DePT of five steps."""
    folder = tmp_path_factory.mktemp("nlvr2")
    write_nlvr2(folder / "raw")
    data = str(folder / "data")
    demo = ["--task", "nlvr2", "--data-dir", data, "--config", "demo"]
    assert main(["prepare", "--task", "nlvr2", "--raw", str(folder / "raw"), "--out", data, "--subset"]) == 0
    assert main(["cache-features", *demo, "--workers", "0"]) == 0
    steps = ["--loop.max_steps", "5", "--loop.eval_every_steps", "5", "--model.visual_position_bias", "sequential"]
    assert main(["train", *demo, "--output-dir", str(folder / "run"), *steps]) == 0
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return dept_vl.load(folder / "run")


@pytest.fixture(scope="module")
def pair(folder):
    return [folder / "raw" / "images" / "test1" / f"test1-0-0-img{number}.png" for number in range(2)]


def test_a_run_is_scored_by_accuracy_and_by_the_consistency_of_a_plain_loop(folder, capsys):
    printed = run(["eval", "--checkpoint", str(folder / "run")], capsys)
    assert "accuracy" in printed
    assert "consistency" in printed
    metrics = json.loads((folder / "run" / "results-test.json").read_text())["metrics"]
    said = json.loads((folder / "run" / "predictions-test.json").read_text())
    truth = [json.loads(line) for line in (folder / "raw" / "data" / "test1.json").read_text().splitlines()]
    answers = {one["identifier"]: one["prediction"] for one in said}
    assert list(answers) == [one["identifier"] for one in truth]
    right = {one["identifier"]: answers[one["identifier"]] == one["label"].lower() for one in truth}
    sentences = defaultdict(list)
    for identifier, is_right in right.items():
        split, of_set, _, sentence = identifier.split("-")
        sentences[split, of_set, sentence].append(is_right)
    assert metrics["accuracy"] == sum(right.values()) / len(right)
    assert metrics["consistency"] == sum(map(all, sentences.values())) / len(sentences)
    line = json.loads((folder / "run" / "answers-test.jsonl").read_text().splitlines()[0])
    assert line["image"] == [f"images/test1/test1-0-0-img{number}.png" for number in range(2)]


def codec_of(model):
    return model.parts.codec


def open_store(folder):
    (store,) = (folder / "data" / "features").iterdir()
    return FeatureStore.open(store)


def test_a_batch_has_the_features_of_a_rows_images_in_their_order(folder, model):
    rows = open_split(folder / "data", TASK, "train")
    store = open_store(folder)
    dataset = TaskDataset(rows, TASK, codec_of(model), visual=CachedFeatures(store), **LENGTHS)
    batch = dataset.batch(BatchRequest(step=0, indices=(5, 2), is_last_of_step=True, global_rows=2))
    for place, row in enumerate((5, 2)):
        assert torch.equal(batch.visual_features[place], store.read(rows[row]["image_id"]).float())
    zeros = TaskDataset(rows, TASK, codec_of(model), visual=ZeroFeatures(4, 6), **LENGTHS)
    assert zeros.batch(BatchRequest(0, (1,), is_last_of_step=True, global_rows=1)).visual_features.shape == (1, 2, 4, 6)


def test_a_row_is_left_out_if_one_of_its_images_could_not_be_read(folder, model):
    rows = open_split(folder / "data", TASK, "train")
    skipped = {rows[3]["image_id"][1]}
    dataset = TaskDataset(rows, TASK, codec_of(model), visual=ZeroFeatures(4, 6, skipped), **LENGTHS)
    gone = set(range(len(rows))) - set(dataset.indices.tolist())
    assert gone == {row for row in range(len(rows)) if set(rows[row]["image_id"]) & skipped} == {2, 3}


@pytest.mark.parametrize("source", ["cache", "encode"])
def test_answers_do_not_depend_on_batch_mates_or_on_where_features_come_from(folder, source):
    scores = {}
    for size in (1, 7):
        config = load_config(
            folder / "run" / "config.yaml", {"data.visual_features": source, "data.eval_batch_size": size}
        )
        parts = open_run(config, folder / "data", ("test",), Session(), adapter=folder / "run")
        answerer = Answerer(parts.model, parts.codec, parts.visual["test"], parts.decoding)
        dataset, found = parts.datasets["test"], []
        for start in range(0, 14, size):
            rows = tuple(range(start, start + size))
            batch = dataset.batch(BatchRequest(0, rows, is_last_of_step=True, global_rows=size))
            found += [one.log_likelihoods for one in answerer.answer(batch)]
        scores[size] = torch.tensor([list(one.values()) for one in found])
    torch.testing.assert_close(scores[1], scores[7], rtol=1e-5, atol=2e-3 if source == "encode" else 1e-4)


def test_padding_between_text_and_two_images_is_neutral(folder, model):
    net, store = model.parts.model, open_store(folder)
    rows = open_split(folder / "data", TASK, "test")
    features = torch.stack([store.read(rows[0]["image_id"]).float()])
    ids = torch.tensor([codec_of(model).source_ids([TASK.source_text(rows[0])], 32)[0]])
    mask = torch.ones_like(ids)
    plain = net.embed(ids, mask, features)
    padded = net.embed(*(torch.nn.functional.pad(one, (0, 5)) for one in (ids, mask)), features)
    torch.testing.assert_close(plain, padded, rtol=1e-5, atol=1e-5)
    swapped = net.embed(ids, mask, features.flip(1))
    assert (plain - swapped).abs().max() > 1e-4
    tokens = net.joint_input(ids, mask, features).inputs_embeds.shape[1]
    assert tokens == net.tuner.num_virtual_tokens + ids.shape[1] + 2 * store.num_visual_tokens


def test_the_command_line_asks_about_two_images(folder, model, pair, capsys, tmp_path):
    asked = ["predict", "--checkpoint", str(folder / "run"), "--column", f"sentence={SENTENCES[1]}"]
    out = tmp_path / "out.jsonl"
    printed = run([*asked, "--image", *map(str, pair), "--output", str(out)], capsys)
    assert printed.startswith(f"{pair[0]}\n{pair[1]}\n  sentence: Both images show a disc.\n  label: ")
    record = json.loads(out.read_text())
    assert record["image"] == list(map(str, pair))
    assert record["log_likelihoods"] == pytest.approx(model.score(pair, SENTENCES[1]), rel=1e-4)
    lines = tmp_path / "in.jsonl"
    lines.write_text(json.dumps({"image": list(map(str, pair)), "sentence": SENTENCES[1], "identifier": "a-1-2-3"}))
    run(
        ["predict", "--checkpoint", str(folder / "run"), "--input", str(lines), "--output", str(tmp_path / "o.json")],
        capsys,
    )
    (answer,) = json.loads((tmp_path / "o.json").read_text())
    assert answer == {
        "identifier": "a-1-2-3",
        "prediction": max(record["log_likelihoods"], key=record["log_likelihoods"].get),
    }
    sheet = tmp_path / "sheet.png"
    run([*asked, "--image", str(pair[0]), "--image", str(pair[1]), "--sheet", str(sheet)], capsys)
    with Image.open(sheet) as drawn:
        left, right = (drawn.convert("RGB").getpixel((12 + 112 * number + 3, 15)) for number in range(2))
    assert left != right


def test_the_card_says_how_to_ask_about_two_images(folder):
    card = (folder / "run" / "README.md").read_text()
    assert "model.score(['photo-1.jpg', 'photo-2.jpg'], sentence='TEXT')" in card
    assert "--image IMAGE IMAGE --column sentence=TEXT" in card


def test_rows_that_are_asked_have_the_scores_they_are_evaluated_with(folder, model):
    config = load_config(folder / "run" / "config.yaml", {"data.visual_features": "encode"})
    parts = open_run(config, folder / "data", ("test",), Session(), adapter=folder / "run")
    answerer = Answerer(parts.model, parts.codec, parts.visual["test"], parts.decoding)
    batch = parts.datasets["test"].batch(BatchRequest(0, (0, 2, 5), is_last_of_step=True, global_rows=3))
    scored = [one.log_likelihoods for one in answerer.answer(batch)]
    rows = open_split(folder / "data", TASK, "test")
    for row, expected in zip((0, 2, 5), scored, strict=True):
        images = [folder / "raw" / image for image in rows[row]["image"]]
        assert model.score(images, rows[row]["sentence"]) == pytest.approx(expected, abs=2e-3)
        assert model.score(images[::-1], rows[row]["sentence"]) != pytest.approx(expected, abs=4e-3)


def test_python_asks_about_two_images_in_any_form(model, pair):
    expected = model.answer(pair, SENTENCES[0])
    assert model.takes == ("image", "sentence")
    assert model.answer([Image.open(pair[0]), pair[1].read_bytes()], sentence=SENTENCES[0]) == expected
    inputs = [(pair, SENTENCES[0]), {"image": pair[::-1], "sentence": SENTENCES[0]}, (tuple(pair), SENTENCES[1])]
    many = model.score_many(inputs)
    for one, values in zip(many, ((pair, 0), (pair[::-1], 0), (pair, 1)), strict=True):
        assert one == pytest.approx(model.score(values[0], SENTENCES[values[1]]), rel=1e-3)
    assert many[0] != pytest.approx(many[1], rel=1e-5)


@pytest.mark.parametrize("given", ["one", "three", "single"])
def test_another_number_of_images_is_refused_in_python(model, pair, given):
    images = {"one": [pair[0]], "three": [*pair, pair[0]], "single": pair[0]}[given]
    found = {"one": "1", "three": "3", "single": "PosixPath"}[given]
    with pytest.raises(
        ConfigError, match=rf"expected a list of 2 images, got {found}; .* image \(a list of 2\), sente"
    ):
        model.answer(images, SENTENCES[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--image", "{0}"],
            "--image: a row of task 'nlvr2' has 2 images, got {0}; for several rows give --input JSONL",
        ),
        (["--image", "{0}", "{1}", "{0}"], "has 2 images, got {0} {1} {0}"),
        (["--image", "{images}"], "has 2 images, got {images}"),
        ([], "--image: task 'nlvr2' needs 2 images or a JSONL file"),
        (["--input", "one.jsonl"], "one.jsonl, line 1: \"image\" has 1 paths, and a row of task 'nlvr2' has 2 images"),
        (["--input", "text.jsonl"], 'text.jsonl, line 1: missing "image", a list of 2 paths'),
        (["--image", "{0}", "no.png"], "no.png: no such image file"),
    ],
)
def test_another_number_of_images_is_refused_on_the_command_line(folder, pair, words, message, capsys, tmp_path):
    places = {"0": str(pair[0]), "1": str(pair[1]), "images": str(pair[0].parent)}
    names = (str(pair[0]), str(pair[1]))
    for name, image in (("one", [names[0]]), ("text", names[0])):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"image": image, "sentence": "a"}))
    words = [str(tmp_path / word) if word.endswith(".jsonl") else word.format(*names, **places) for word in words]
    assert main(["predict", "--checkpoint", str(folder / "run"), "--column", "sentence=a", *words]) == 2
    assert message.format(*names, **places) in capsys.readouterr().err


def test_a_task_of_one_image_takes_no_two(pair, capsys, folder):
    run_dir = save_run(folder / "vqa", "vqa", "demo")
    words = ["predict", "--checkpoint", str(run_dir), "--question", "what?", "--image", *map(str, pair)]
    assert main(words) == 2
    assert "a row of task 'vqa' has one image, got" in capsys.readouterr().err


@pytest.mark.parametrize(("bias", "warns"), [("zero", True), ("sequential", False)])
def test_a_run_that_cannot_tell_the_images_apart_says_so(folder, bias, warns, caplog):
    given = {"model.visual_position_bias": bias, "model.visual_projection": "linear"}
    config = load_config(folder / "run" / "config.yaml", given)
    open_run(config, folder / "data", ("train",))
    assert ("cannot tell which of a row's 2 images is which" in caplog.text) == warns
