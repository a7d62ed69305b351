"""Vision-language backbones on the whole way from raw files: trained, scored, asked, resumed, saved and loaded; and
what is refused."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import dept_vl
from dept_vl.data.image_rows import ImageRows
from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.families import FAMILIES
from dept_vl.models.language.load import load_backbone
from dept_vl.models.language.stored import find_folder
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.settings.load import load_config
from dept_vl.settings.own_encoder import has_own_image_encoder
from tests.commands import prepared_rows, refusal, run
from tests.hub_server import Repository
from tests.models.adapter.test_files import rewrite
from tests.models.vision_language_folders import MAKERS, draw_image, is_readable, save_tiny_vlm
from tests.tuners.adapted import settings

SMALL = (
    "--data.max_source_length", "24", "--data.max_target_length", "5", "--data.batch_size", "4",
    "--tuner.num_virtual_tokens", "4", "--loop.eval_every_steps", "2", "--loop.eval_rows", "8",
)  # fmt: skip
DEPT = ("--tuner.budget_tokens", "11", *SMALL)  # 4 x 32 + (24 + 32) x 4 numbers
PROMPT = settings("prompt-tuning", num_virtual_tokens=2)

READABLE = [
    pytest.param(family, marks=pytest.mark.skipif(not is_readable(family), reason="needs the extra smolvlm"))
    for family in MAKERS
]


@pytest.fixture(scope="module", params=["qwen3_vl", "idefics3"])
def vlm(request, tmp_path_factory):
    return save_tiny_vlm(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return save_tiny_vlm("qwen3_vl", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def picture(data):
    return next((data.parent / "raw").rglob("*.jpg"))


def on(vlm, data, task="vqa"):
    return ["--task", task, "--data-dir", data, "--model.backbone", vlm]


def last_state(folder):
    """Every tensor of the last checkpoint, the optimiser's among them."""
    files = sorted((folder / "checkpoints" / "step-00000004").glob("*.safetensors"))
    assert files
    return [path.read_bytes() for path in files]


def adapter_of(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def test_from_raw_files_to_scores_and_answers(capsys, vlm, data, picture, tmp_path):
    code, out, _ = run(capsys, "info", *on(vlm, data), *DEPT[:4], "--tuner.num_virtual_tokens", "4")
    assert (code, "trainable    352 " in out) == (0, True)
    folder = tmp_path / "run"
    code, out, error = run(capsys, "train", *on(vlm, data), *DEPT, "--output-dir", folder, "--loop.max_steps", "4")
    assert code == 0, error
    assert "trained 4 steps" in out
    saved = json.loads((folder / "adapter_config.json").read_text())
    assert (saved["visual"], saved["answer_form"], saved["backbone"]["d_model"]) == (None, "chat", 32)
    assert saved["features"]["kind"] == "backbone"
    assert "read by the backbone's own image encoder" in (folder / "README.md").read_text()
    code, out, error = run(capsys, "eval", "--checkpoint", folder)
    assert code == 0, error
    assert "vqa_accuracy" in out
    assert len(json.loads((folder / "predictions-test.json").read_text())) == 8
    code, out, error = run(capsys, "predict", "--checkpoint", folder, "--image", picture, "--question", "what is it?")
    assert code == 0, error
    assert "greedy:" in out
    model = dept_vl.load(folder)
    asked = [(picture, "what is it?"), (picture, "how many?")]
    assert model.answer_many(asked) == [model.answer(*one) for one in asked]


def check_goes_on_to_the_bit(capsys, vlm, data, tmp_path, *more):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = [*on(vlm, data), *DEPT, *more, "--loop.max_steps", "4", "--loop.save_every_steps", "2"]
    code, _, error = run(capsys, "train", *words, "--output-dir", whole)
    assert code == 0, error
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "step-00000004")
    code, _, error = run(capsys, "train", *words, "--output-dir", parts, "--data.num_workers", "1", "--resume")
    assert code == 0, error
    assert last_state(parts) == last_state(whole)
    assert adapter_of(parts) == adapter_of(whole)


@pytest.mark.parametrize("family", READABLE)
def test_a_run_that_is_stopped_goes_on_to_the_bit(capsys, data, tmp_path, family):
    check_goes_on_to_the_bit(capsys, save_tiny_vlm(family, tmp_path / "vlm"), data, tmp_path)


def test_a_run_whose_rows_are_grouped_by_image_goes_on_to_the_bit(capsys, qwen, data, tmp_path):
    check_goes_on_to_the_bit(capsys, qwen, data, tmp_path, "--data.rows_per_image", "3")


@pytest.mark.parametrize("tuner", ["lora", "dept+lora", "ia3", "adapter"])
def test_methods_inside_the_backbone_train_too(capsys, qwen, data, tmp_path, tuner):
    folder = tmp_path / "run"
    words = ["--data.max_source_length", "24", "--data.max_target_length", "5", "--data.batch_size", "4"]
    small = {
        "lora": ["--tuner.rank", "2"],
        "dept+lora": [
            "--tuner.parts.dept.budget_tokens", "11", "--tuner.parts.dept.num_virtual_tokens", "4",
            "--tuner.parts.lora.rank", "2",
        ],
        "ia3": [],
        "adapter": ["--tuner.bottleneck", "4"],
    }[tuner]  # fmt: skip
    words += ["--tuner", tuner, *small, "--loop.max_steps", "2", "--loop.eval_every_steps", "2"]
    code, _, error = run(capsys, "train", *on(qwen, data), *words, "--output-dir", folder)
    assert code == 0, error
    assert run(capsys, "eval", "--checkpoint", folder)[0] == 0


def test_text_tasks_and_several_images_a_row(capsys, qwen, data, tmp_path):
    code, _, error = run(
        capsys, "train", *on(qwen, data, "cola"), *DEPT, "--output-dir", tmp_path / "text", "--loop.max_steps", "2"
    )
    assert code == 0, error
    code, out, error = run(capsys, "eval", "--checkpoint", tmp_path / "text")
    assert (code, "matthews_correlation" in out) == (0, True), error
    code, _, error = run(
        capsys, "train", *on(qwen, data, "nlvr2"), *DEPT, "--output-dir", tmp_path / "two", "--loop.max_steps", "2"
    )
    assert code == 0, error
    code, out, error = run(capsys, "eval", "--checkpoint", tmp_path / "two")
    assert (code, "accuracy" in out) == (0, True), error


def test_rows_of_one_and_of_two_images_share_batches(capsys, qwen, data, tmp_path):
    folder = tmp_path / "run"
    words = ["--loop.max_steps", "3", "--mix.batches", "mixed", "--output-dir", folder]
    code, _, error = run(capsys, "train", *on(qwen, data, "vqa+nlvr2"), *DEPT, *words)
    assert code == 0, error
    assert json.loads((folder / "adapter_config.json").read_text())["tasks"] == ["vqa", "nlvr2"]
    assert run(capsys, "eval", "--checkpoint", folder)[0] == 0


@pytest.mark.parametrize("batches", ["mixed", "one-task"])
def test_rows_of_text_alone_share_a_run_and_its_batches_with_rows_of_images(capsys, qwen, data, tmp_path, batches):
    """Whichever comes first: the images of a batch are not those of its first task."""
    folder = tmp_path / "run"
    words = ["--loop.max_steps", "3", "--mix.batches", batches, "--output-dir", folder]
    code, _, error = run(capsys, "train", *on(qwen, data, "cola+vqa+nlvr2"), *DEPT, *words)
    assert code == 0, error
    assert json.loads((folder / "adapter_config.json").read_text())["features"]["kind"] == "backbone"
    code, out, error = run(capsys, "eval", "--checkpoint", folder)
    assert code == 0, error
    assert all(metric in out for metric in ("matthews_correlation", "vqa_accuracy"))
    model = dept_vl.load(folder)
    assert model.for_task("cola").answer("the ball is red") in model.for_task("cola").labels


def test_a_blind_baseline_reads_as_many_tokens(capsys, qwen, data, tmp_path):
    folder = tmp_path / "run"
    words = ["--loop.max_steps", "2", "--data.visual_features", "zero"]
    code, _, error = run(capsys, "train", *on(qwen, data), *DEPT, *words, "--output-dir", folder)
    assert code == 0, error
    assert run(capsys, "eval", "--checkpoint", folder)[0] == 0


def test_an_ablation_says_what_the_images_do(capsys, qwen, data, tmp_path):
    folder = tmp_path / "run"
    assert run(capsys, "train", *on(qwen, data), *DEPT, "--loop.max_steps", "2", "--output-dir", folder)[0] == 0
    code, out, error = run(capsys, "ablate", folder, "--parts", "soft_prompt,features")
    assert code == 0, error
    assert "features" in out


# What is refused


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "vlm")


def edited(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_a_family_that_is_not_supported_names_those_that_are(capsys, qwen, data, tmp_path):
    folder = copied(qwen, tmp_path)
    edited(folder / "config.json", lambda config: {**config, "model_type": "kosmos-2"})
    error = refusal(capsys, "train", *on(folder, data), *DEPT, "--output-dir", tmp_path / "run")
    assert "is of type 'kosmos-2'" in error
    assert all(family in error for family in FAMILIES)
    assert not (tmp_path / "run").exists()


def test_a_language_model_in_it_that_is_not_known_is_named(tmp_path):
    folder = save_tiny_vlm("llava", tmp_path)
    edited(folder / "config.json", lambda config: {**config, "text_config": {"model_type": "opt", "vocab_size": 300}})
    with pytest.raises(ConfigError, match="is of type 'opt', expected one of llama, mistral, qwen2"):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("settings_of_images", "message"),
    [
        (None, "no processor there, which makes a vision-language model's images; its folder needs processor_config"),
        (
            {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "processor_class": "Wav2Vec2Processor"},
            "reads no images (Wav2Vec2Processor); give a folder with the settings of the processor",
        ),
    ],
)
def test_a_processor_without_images_is_refused(capsys, qwen, data, tmp_path, settings_of_images, message):
    folder = copied(qwen, tmp_path)
    for name in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    if settings_of_images is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings_of_images))
    error = refusal(capsys, "train", *on(folder, data), *DEPT, "--output-dir", tmp_path / "run")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_images_of_more_tokens_than_the_context_are_refused(capsys, qwen, data, tmp_path):
    folder = copied(qwen, tmp_path)

    def shorten(config):
        return {**config, "text_config": {**config["text_config"], "max_position_embeddings": 40}}

    edited(folder / "config.json", shorten)
    error = refusal(capsys, "train", *on(folder, data), *DEPT, "--output-dir", tmp_path / "run")
    assert "of them of images" in error
    assert "the backbone has 40 (qwen3_vl's max_position_embeddings); give smaller or fewer images" in error


def test_texts_cannot_be_grouped_by_image(capsys, qwen, data, tmp_path):
    words = [*DEPT, "--data.rows_per_image", "4", "--output-dir", tmp_path / "run"]
    error = refusal(capsys, "train", *on(qwen, data, "cola"), *words)
    assert "data.rows_per_image: rows of task 'cola' have no images; leave it out" in error


def test_text_tasks_beside_tasks_with_images_are_refused_on_other_backbones(capsys, data, tmp_path):
    for task in ("cola+vqa", "vqa+cola"):
        error = refusal(capsys, "train", *on("demo", data, task), "--output-dir", tmp_path / "run")
        assert "mixes tasks with images (vqa) and without (cola)" in error
    assert not (tmp_path / "run").exists()


def test_an_adapter_of_another_family_is_refused(qwen, tmp_path):
    other = save_tiny_vlm("qwen2_5_vl", tmp_path / "other")
    model, _ = build_model(ModelConfig(backbone=str(qwen)), PROMPT, max_source_length=16, feature_dim=None, seed=0)
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"backbone\.family: saved for 'qwen3_vl', this run has 'qwen2_5_vl'"):
        load_model(tmp_path / "adapter", ModelConfig(backbone=str(other)))


def with_another_tensor(folder, name, tmp_path):
    """A copy of a backbone's folder with one tensor changed."""
    copy = copied(folder, tmp_path)
    tensors = load_file(copy / "model.safetensors")
    (found,) = [key for key in tensors if key.endswith(name)]
    tensors[found] = tensors[found] + 0.5
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return copy


@pytest.mark.parametrize("name", ["visual.patch_embed.proj.weight", "visual.merger.linear_fc2.bias"])
def test_an_adapter_of_another_image_encoder_or_connector_is_refused(qwen, tmp_path, name):
    model, _ = build_model(ModelConfig(backbone=str(qwen)), PROMPT, max_source_length=16, feature_dim=None, seed=0)
    model.save_pretrained(tmp_path / "adapter")
    other = with_another_tensor(qwen, name, tmp_path)
    with pytest.raises(CheckpointError, match=r"backbone\.image_weights_sha256: saved for '[0-9a-f]{64}'"):
        load_model(tmp_path / "adapter", ModelConfig(backbone=str(other)))


def test_an_adapter_of_before_image_encoders_were_recorded_says_so_and_loads(qwen, tmp_path, caplog):
    config = ModelConfig(backbone=str(qwen))
    model, _ = build_model(config, PROMPT, max_source_length=16, feature_dim=None, seed=0)
    model.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda described: described["backbone"].pop("image_weights_sha256"))
    again, _ = load_model(tmp_path, config)
    assert torch.equal(again.tuner.soft_prompt, model.tuner.soft_prompt)
    assert "does not record the weights of the image encoder and its connector" in caplog.text


def test_an_adapter_of_another_system_prompt_is_refused(qwen, tmp_path):
    config = ModelConfig(backbone=str(qwen), system_prompt="Answer in one word.")
    model, codec = build_model(config, PROMPT, max_source_length=16, feature_dim=None, seed=0)
    assert "Answer in one word." in codec.tokenizer.decode(codec.frame.head)
    model.save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"model\.system_prompt: saved for 'Answer in one word\.', this run has None"
    ):
        load_model(tmp_path, ModelConfig(backbone=str(qwen)))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for message in messages %}<|im_start|>{% endfor %}", "leaves a user's text out, or says it twice"),
        ("{{ messages[-1]['content'][-1]['text'] }}", "does not put the images of a user's turn one after the other"),
        ("{{ raise_exception('no turn without a system') }}", "no turn without a system"),
    ],
)
def test_a_template_that_hides_what_the_user_gives_is_refused(qwen, tmp_path, template, message):
    folder = copied(qwen, tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ConfigError, match=message):
        build_model(ModelConfig(backbone=str(folder)), PROMPT, max_source_length=16, feature_dim=None, seed=0)


def test_a_template_without_room_for_a_system_prompt_is_refused(qwen, tmp_path):
    folder = copied(qwen, tmp_path)
    text = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("{% set messages = messages[-1:] %}" + text)
    with pytest.raises(ConfigError, match=r"model\.system_prompt: the chat template of the backbone's processor"):
        build_model(
            ModelConfig(backbone=str(folder), system_prompt="Be brief."), PROMPT, max_source_length=16,
            feature_dim=None, seed=0,
        )  # fmt: skip


@pytest.fixture(scope="module")
def built(qwen):
    return build_model(ModelConfig(backbone=str(qwen)), PROMPT, max_source_length=16, feature_dim=None, seed=0)


def asked(built, num_rows=1):
    model, codec = built
    ids = torch.tensor(codec.source_ids(["what color"] * num_rows, 16))
    image = model.backbone.image_processing()(draw_image(40, 28))
    return model, ids, torch.ones_like(ids), image


def test_more_images_than_texts_are_refused(built):
    model, ids, mask, image = asked(built)
    with pytest.raises(DataError, match="reads 1 texts, and got 2 rows of images"):
        model.joint_input(ids, mask, ImageRows.one_each([image, image]))


def test_more_image_tokens_than_placeholders_are_refused(built):
    model, ids, mask, image = asked(built)
    short = type(image)(image.ids[2:], image.tensors)
    with pytest.raises(DataError, match="1 images became 12 tokens, and their processor left 11 places"):
        model.joint_input(ids, mask, ImageRows.one_each([short]))


def test_features_of_an_encoder_beside_it_are_refused(built):
    model, ids, mask, _ = asked(built)
    with pytest.raises(DataError, match="got features of another encoder"):
        model.joint_input(ids, mask, torch.zeros(1, 3, 8))


def test_an_image_that_the_processor_refuses_is_named(capsys, qwen, data, tmp_path):
    path = tmp_path / "line.png"
    draw_image(400, 1).save(path)
    folder = tmp_path / "run"
    assert run(capsys, "train", *on(qwen, data), *DEPT, "--loop.max_steps", "2", "--output-dir", folder)[0] == 0
    error = refusal(capsys, "predict", "--checkpoint", folder, "--image", path, "--question", "what?")
    assert "the backbone's processor refuses an image of 400 x 1 pixels" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model.image_encoder.model", "RN50"), "model.image_encoder: "),
        (("--model.visual_projection", "vl-t5"), "model.visual_projection: "),
        (("--data.answer_form", "plain"), "data.answer_form: a vision-language backbone is led to its answers"),
        (("--data.feature_dir", "features"), "features/index.json: no such file: there is no feature store here"),
    ],
)
def test_settings_of_an_encoder_beside_it_are_refused(capsys, qwen, data, tmp_path, words, message):
    error = refusal(capsys, "train", *on(qwen, data), *DEPT, *words, "--output-dir", tmp_path / "run")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_an_image_encoder_is_refused_in_python_too(qwen):
    config = ModelConfig(backbone=str(qwen), image_encoder=OpenClipConfig(model="RN50"))
    with pytest.raises(ConfigError, match="has an image encoder and a projection of its own"):
        build_model(config, PROMPT, max_source_length=16, feature_dim=None, seed=0)


def test_a_system_prompt_is_for_vision_language_models_alone(t5_folder):
    config = ModelConfig(backbone=str(t5_folder), system_prompt="Be brief.")
    with pytest.raises(ConfigError, match=r"model\.system_prompt: stands in the chat template of a vision-language"):
        build_model(config, PROMPT, max_source_length=16, feature_dim=None, seed=0)


def test_the_recorded_settings_say_the_system_prompt(capsys, qwen, data, tmp_path):
    folder = tmp_path / "run"
    words = ["--model.system_prompt", "Be brief.", "--loop.max_steps", "2", "--output-dir", folder]
    assert run(capsys, "train", *on(qwen, data), *DEPT, *words)[0] == 0
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["system_prompt"] == "Be brief."
    assert load_config(folder / "config.yaml").model.system_prompt == "Be brief."
    assert json.loads((folder / "adapter_config.json").read_text())["system_prompt"] == "Be brief."
    assert run(capsys, "eval", "--checkpoint", folder)[0] == 0


def test_a_model_of_the_hub_is_known_by_its_settings_and_loaded_whole(hub, qwen):
    name = "somebody/tiny-vlm"
    hub.repositories[name] = Repository(False)
    hub.repositories[name].commit("main", {path.name: path.read_bytes() for path in qwen.iterdir() if path.is_file()})
    config = load_config(None, {"task": "vqa", "model.backbone": name})
    assert find_folder(name) is None
    assert has_own_image_encoder(config)
    folder = find_folder(name)
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == {"config.json"}
    backbone, _ = load_backbone(name)
    assert backbone.template().image == "<|vision_start|><|image_pad|><|vision_end|>"
    with pytest.raises(ConfigError, match=r"model\.backbone: cannot load 'somebody/nothing'"):
        has_own_image_encoder(load_config(None, {"task": "vqa", "model.backbone": "somebody/nothing"}))


def test_a_model_that_cannot_be_had_is_named_and_not_the_features_of_another(capsys, qwen, data, tmp_path):
    error = refusal(capsys, "train", *on("Qwen/Qwen3-VL-2B-Instruct", data), *DEPT, "--output-dir", tmp_path / "run")
    assert "model.backbone: cannot load 'Qwen/Qwen3-VL-2B-Instruct'" in error
    assert "feature" not in error
