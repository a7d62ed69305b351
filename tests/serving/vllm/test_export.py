"""``dept-vl export --vllm``: an engine that is sent what its client makes reads what the model reads, to the bit."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from dept_vl.cli import main
from dept_vl.data.image_rows import ImageRows
from dept_vl.errors import CheckpointError
from dept_vl.inference.inputs import PredictionInput, source_texts
from dept_vl.models.language.source_hook import Kind
from dept_vl.runs.folder import read_run_config
from dept_vl.serving.vllm import client
from dept_vl.serving.vllm.client import ExportedAdapter
from tests.api.saved_runs import save_run
from tests.models.language.causal_folders import SAVE_TINY
from tests.models.vision_language_folders import MAKERS, draw_image, is_readable, save_tiny_vlm
from tests.serving.vllm.conftest import DEPT, exported, loaded, save_vlm_run
from tests.serving.vllm.engine import Engine, EngineServer

QUESTION = "what color is the ball?"
IMAGES = [draw_image(40, 56, seed=1), draw_image(64, 40, seed=2)]
READABLE = sorted(set(MAKERS) - {"paligemma"})


def uri(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def hook_input(model, codec, text, images):
    """Returns what the model reads: embeddings of one row, and where image tokens are."""
    ids = torch.tensor(codec.source_ids([text], 24))
    rows = None
    if images:
        processing = model.backbone.image_processing(model.config.system_prompt)
        rows = ImageRows((tuple(map(processing, images)),))
    model.backbone.reads_once = False  # so that one row has all that it reads
    joint = model.joint_input(ids, torch.ones_like(ids), rows)
    embeds = joint.inputs_embeds[0]
    kinds = getattr(joint, "kinds", None)
    return embeds, torch.zeros(len(embeds), dtype=torch.bool) if kinds is None else kinds[0] == Kind.IMAGE


def source_text(run, **columns):
    return source_texts(read_run_config(run).resolve_task(), [PredictionInput((), columns)])[0]


@torch.no_grad()
def check_equal(run, out, text, images):
    adapter = ExportedAdapter(exported(run, out))
    model, codec = loaded(run)
    ids = adapter.source_ids(text)
    assert [ids] == codec.source_ids([text], 24)
    engine = Engine(model.backbone, codec.tokenizer)
    read, _, is_image = engine.read(adapter.body(ids, list(map(uri, images)), model="any"))
    expected, expected_places = hook_input(model, codec, text, images)
    assert torch.equal(is_image, expected_places)
    assert is_image.any() == bool(images)
    assert torch.equal(read[~is_image], expected[~is_image])
    if len(images) < 2:  # two at once may be rounded otherwise
        assert torch.equal(read, expected)
    torch.testing.assert_close(read, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", READABLE)
@pytest.mark.parametrize("task", ["vqa", "nlvr2", "sst2"])
def test_an_engine_reads_what_a_vision_language_model_reads(family, task, tmp_path):
    if not is_readable(family):
        pytest.skip("the extra of its processor is not installed")
    settings = {"model.system_prompt": "be short"} if (family, task) == ("qwen3_vl", "sst2") else {}
    run = save_vlm_run(tmp_path / "run", task, save_tiny_vlm(family, tmp_path / "model"), **settings)
    columns = {"question": QUESTION} if task == "vqa" else {"sentence": "two red cubes"}
    images = {"vqa": IMAGES[:1], "nlvr2": IMAGES, "sst2": []}[task]
    check_equal(run, tmp_path / "out", source_text(run, **columns), images)


@pytest.mark.parametrize("family", sorted(set(SAVE_TINY) - {"gemma", "gemma2"}))
@pytest.mark.parametrize("settings", [{}, {"data.answer_form": "released"}, {"model.dtype": "bfloat16"}])
def test_an_engine_reads_what_a_decoder_reads(family, settings, tmp_path):
    run = save_run(tmp_path / "run", "sst2", SAVE_TINY[family](tmp_path / "model"), **DEPT, **settings)
    check_equal(run, tmp_path / "out", source_text(run, sentence="red"), [])


@pytest.mark.parametrize("tuner", [{"tuner.row_alignment": "last-token"}, {"tuner.name": "prompt-tuning"}])
def test_other_alignments_and_plain_prompts(tuner, tiny_llama, tmp_path):
    settings = {"tuner.num_virtual_tokens": 4, **tuner} if "tuner.name" in tuner else {**DEPT, **tuner}
    run = save_run(tmp_path / "run", "sst2", tiny_llama, **settings)
    check_equal(run, tmp_path / "out", source_text(run, sentence="the ball"), [])


def test_a_copy_of_the_client_asks_without_the_package(llava_run, tmp_path):
    out = exported(llava_run, tmp_path / "out")
    model, codec = loaded(llava_run)
    IMAGES[0].save(tmp_path / "one.png")
    with EngineServer(Engine(model.backbone, codec.tokenizer)) as server:
        code = (
            "import runpy, sys; sys.modules['dept_vl'] = None; "
            f"runpy.run_path({str(out / 'client.py')!r}, run_name='__main__')"
        )

        def ask(*words):
            words = [sys.executable, "-c", code, f"vqa: {QUESTION}", *words, "--url", server.address]
            return subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)

        blind = ask()
        assert (blind.returncode, server.engine.bodies) == (2, [])
        assert "0 images are given, and the adapter takes 1" in blind.stderr
        done = ask(str(tmp_path / "one.png"))
        assert done.returncode == 0, done.stderr
        (body,) = server.engine.bodies
        assert body["model"] == "the-engines-name"
        assert done.stdout == server.engine.answer(body)["choices"][0]["message"]["content"].strip() + "\n"


def test_the_command_writes_a_folder_and_says_what_is_to_be_known(capsys, tmp_path):
    run = save_vlm_run(
        tmp_path / "run", "vqa", save_tiny_vlm("qwen3_vl", tmp_path / "model"), **{"decode.num_beams": 3}
    )
    assert main(["export", "--vllm", str(run), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "3 vectors of the prompt, 24 rows of the update" in said
    assert "note: vLLM, in the sources that were read, parts all embeddings of a request with an image" in said
    assert "note: the run answers with 3 beams; through vLLM its answers are greedy" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "client.py", "config.yaml", "embeddings.safetensors", "export.json",
    ]  # fmt: skip
    settings = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (settings["example"], settings["images"], settings["max_new_tokens"]) == ("vqa: ...", 1, 5)
    model, _ = loaded(run)
    tensors = load_file(tmp_path / "out" / "embeddings.safetensors")
    lowrank = (model.tuner.lowrank_a @ model.tuner.lowrank_b) * model.tuner.scaling
    torch.testing.assert_close(tensors["update"], lowrank.detach())
    assert torch.equal(tensors["prompt"], model.tuner.soft_prompt.detach())


def refusal(capsys, run, out, *words):
    capsys.readouterr()  # what wrote the run said something too
    assert main(["export", "--vllm", str(run), "--out", str(out), *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert not out.exists() or out.name == "taken"
    return lines[0]


def test_an_encoder_decoder_is_refused(capsys, t5_folder, tmp_path):
    run = save_run(tmp_path / "run", "vqa", t5_folder)
    said = refusal(capsys, run, tmp_path / "out")
    assert f"{run}: cannot be exported to vLLM: its backbone is an encoder-decoder (t5)" in said
    assert "`dept-vl serve` answers with it" in said


def test_a_decoder_with_an_image_encoder_beside_it_is_refused(capsys, tiny_llama, tmp_path):
    run = save_run(tmp_path / "run", "vqa", tiny_llama)
    assert "its images are encoded beside the backbone" in refusal(capsys, run, tmp_path / "out")


@pytest.mark.parametrize("family", ["gemma", "gemma2", "paligemma"])
def test_families_that_vllm_reads_otherwise_are_refused(capsys, family, tmp_path):
    if family == "paligemma":
        run = save_vlm_run(tmp_path / "run", "vqa", save_tiny_vlm(family, tmp_path / "model"))
    else:
        run = save_run(tmp_path / "run", "sst2", SAVE_TINY[family](tmp_path / "model"), **DEPT)
    match = "puts its images before everything else" if family == "paligemma" else "by sqrt(d_model) once more"
    assert match in refusal(capsys, run, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.train_connector": True}, "its connector was trained, and vLLM has that of the backbone"),
        ({"data.visual_features": "zero"}, "it saw nothing in its images (data.visual_features: zero)"),
    ],
)
def test_images_that_a_run_reads_otherwise_are_refused(capsys, settings, message, tmp_path):
    run = save_vlm_run(tmp_path / "run", "vqa", save_tiny_vlm("llava", tmp_path / "model"), **settings)
    assert message in refusal(capsys, run, tmp_path / "out")


def test_a_method_inside_the_backbone_is_refused(capsys, tiny_llama, tmp_path):
    run = save_run(tmp_path / "run", "sst2", tiny_llama, **{"tuner.name": "lora", "tuner.rank": 2})
    assert "'lora' does more than a prompt before the text" in refusal(capsys, run, tmp_path / "out")


def test_a_folder_that_is_taken_and_one_that_is_no_run(capsys, text_run, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert "taken" in refusal(capsys, text_run, tmp_path / "taken")
    assert "no run here" in refusal(capsys, tmp_path / "absent", tmp_path / "out")
    run = shutil.copytree(text_run, tmp_path / "run")
    (run / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors is missing" in refusal(capsys, run, tmp_path / "out")


def test_refusals_need_no_torch(t5_folder, tmp_path):
    run = save_run(tmp_path / "run", "vqa", t5_folder)
    code = (
        "import sys; from dept_vl.cli import main; status = main(sys.argv[1:]); "
        "sys.exit('imported torch' if 'torch' in sys.modules else status)"
    )
    words = ["export", "--vllm", str(run), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment())
    assert (done.returncode, "imported torch" in done.stderr) == (2, False), done.stderr


def environment():
    return {**os.environ, "PYTHONPATH": os.getcwd()}


def test_embeddings_that_differ_are_never_written(text_run, tmp_path, monkeypatch):
    monkeypatch.setattr(client.ExportedAdapter, "_words", lambda self, ids: torch.zeros(len(ids), 16))
    with pytest.raises(CheckpointError, match="are not those that the model reads"):
        exported(text_run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_is_too_long_for_the_update_is_refused(text_run, tmp_path):
    adapter = ExportedAdapter(exported(text_run, tmp_path / "out"))
    with pytest.raises(ValueError, match=r"the text has \d+ tokens, and the adapter reads 24"):
        adapter.source_ids("red " * 40)


def test_weights_in_shards_are_found(text_run, tiny_llama, tmp_path):
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {name: f"model-0000{1 + ('embed' in name)}-of-00002.safetensors" for name in names}
    for file in sorted(set(files.values())):
        save_file({name: tensors[name] for name in names if files[name] == file}, model / file, {"format": "pt"})
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    run = save_run(tmp_path / "run", "sst2", model, **DEPT)
    check_equal(run, tmp_path / "out", source_text(run, sentence="the ball"), [])
