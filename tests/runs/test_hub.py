"""Runs on the hub: what is pushed is found again, without a path of this machine, and what goes wrong is said."""

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard

import dept_vl
from dept_vl.cli import main
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.adapter.files import load_adapter
from dept_vl.runs.folder import read_run_config
from dept_vl.runs.hub import LARGEST_BYTES, find_run, push_run
from dept_vl.settings.load import dump_config, load_config
from dept_vl.system.bounded_reading import hash_file
from tests.api.saved_runs import save_run
from tests.hub_server import Repository
from tests.models.language.hub_cache import COMMIT, put_into_cache

NAME = "me/adapter"
BACKBONE = {"model.backbone": "me/tiny-t5"}
FILES = ("config.yaml", "adapter_config.json", "adapter_model.safetensors")


def words(t5_folder, data, folder):
    return [
        "train", "--task", "cola", "--data-dir", str(data), "--model.backbone", str(t5_folder),
        "--output-dir", str(folder), "--data.max_source_length", "16", "--data.batch_size", "8",
        "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4", "--loop.max_steps", "1",
        "--loop.trackers", "[]",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(t5_folder, label_data, tmp_path_factory) -> Path:
    """A run of one step on a backbone in a folder, scored."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    source = tmp_path_factory.mktemp("source") / "run"
    assert main(words(t5_folder, label_data, source)) == 0
    assert main([*words(t5_folder, label_data, folder), "--init-from", str(source)]) == 0
    assert main(["eval", "--checkpoint", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def pushed(hub, trained):
    push_run(trained, NAME, settings=BACKBONE)
    return hub.repositories[NAME]


def edited(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_what_is_pushed_is_found_with_the_same_tensors_and_settings(hub, trained):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert push_run(trained, NAME, settings=BACKBONE) == f"{hub.endpoint}/{NAME}"
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
    found = find_run(NAME)
    assert {path.name for path in found.iterdir()} == set(FILES)
    (ours, mine), (theirs, their_config) = load_adapter(trained), load_adapter(found)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert their_config.backbone.name == "me/tiny-t5"
    assert their_config.backbone.weights_sha256 == mine.backbone.weights_sha256
    config = read_run_config(found)
    assert (config.tuner, config.model.backbone) == (read_run_config(trained).tuner, "me/tiny-t5")


def test_no_path_of_this_machine_is_pushed(pushed, trained):
    config = read_run_config(trained)
    assert None not in (config.output_dir, config.data.dir, config.init.source)
    places = [str(place).encode() for place in (Path.home(), trained.parents[1], "/tmp", "home/")]
    assert set(pushed.files) == {".gitattributes", "README.md", *FILES}
    for name, content in pushed.files.items():
        assert [place for place in places if place in content] == [], name


def test_an_adapter_on_a_backbone_of_the_hub_is_pushed_byte_for_byte(hub, trained, t5_folder, label_data, tmp_path):
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    snapshot = put_into_cache(cache, "me/tiny-t5", t5_folder)
    assert main(words(snapshot, label_data, tmp_path / "run")) == 0
    push_run(tmp_path / "run", NAME)
    for name in FILES[1:]:
        assert hub.repositories[NAME].files[name] == (tmp_path / "run" / name).read_bytes()
    model = read_run_config(find_run(NAME)).model
    assert (model.backbone, model.revision) == ("me/tiny-t5", COMMIT)


def test_a_frozen_model_that_nobody_else_has_is_refused_before_anything_is_made(hub, run, t5_folder, tmp_path):
    config = load_config(run / "config.yaml", {"model.image_encoder.model": str(tmp_path)})
    (run / "config.yaml").write_text(dump_config(config))
    with pytest.raises(ConfigError, match=r"model\.backbone: .* --model\.backbone NAME[\s\S]*--model\.image_encoder\."):
        push_run(run, NAME)
    assert hub.requests == []


def test_a_damaged_adapter_is_not_pushed(hub, run):
    weights = run / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="damaged"):
        push_run(run, NAME, settings=BACKBONE)
    assert hub.requests == []


def test_the_card_has_licence_scores_and_what_loads_it(pushed, hub, trained):
    push_run(trained, NAME, settings=BACKBONE, licence="cc-by-4.0", commit_message="again")
    card = ModelCard(pushed.files["README.md"].decode())
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "dept-vl", "text-classification")
    assert data.base_model == "me/tiny-t5"
    scores = json.loads((trained / "results-test.json").read_text())["metrics"]
    (result,) = [one for one in data.eval_results if (one.dataset_split, one.metric_type) == ("test", "accuracy")]
    assert result.metric_value == round(100 * scores["accuracy"], 1)
    assert (result.metric_name, result.dataset_type) == ("Accuracy", "nyu-mll/glue")
    assert result.dataset_name == "cola (protocol fixed, 8 of 522 rows)"
    assert {one.dataset_split for one in data.eval_results} == {"validation", "test"}
    assert f"dept_vl.load('{NAME}')" in card.text
    assert "of the adapter: cc-by-4.0; of the frozen backbone: unknown" in card.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda scored: {**scored, "sha256": {"adapter": "0" * 64}}, "they are of another adapter"),
        (
            lambda scored: {**scored, "config": {**scored["config"], "decode": {"num_beams": 5}}},
            "they were made with another decode.num_beams",
        ),
        (lambda scored: {**scored, "metrics": {"accuracy": float("nan")}}, "they are not finite"),
        (lambda scored: [], "it cannot be read"),
    ],
    ids=["adapter", "settings", "nan", "list"],
)
def test_scores_that_are_not_the_run_s_are_left_out(hub, run, caplog, change, says):
    edited(run / "results-test.json", change)
    with caplog.at_level(logging.WARNING):
        push_run(run, NAME, settings=BACKBONE)
    assert says in caplog.text
    data = ModelCard(hub.repositories[NAME].files["README.md"].decode()).data
    assert {one.dataset_split for one in data.eval_results} == {"validation"}


def test_drawn_scenes_are_not_taken_for_vqa_v2(hub, tmp_path):
    run = save_run(tmp_path / "run", "vqa", "demo", **{"data.dir": "demo"})
    scored = {
        "task": "vqa", "metrics": {"vqa_accuracy": 43.84, "vqa_accuracy/other": 1.0}, "num_scored": 2000,
        "config": asdict(read_run_config(run)), "data": {"complete": False, "complete_rows": 26280},
        "sha256": {"adapter": hash_file(run / "adapter_model.safetensors")},
    }  # fmt: skip
    (run / "results-test.json").write_text(json.dumps(scored))
    push_run(run, NAME)
    card = hub.repositories[NAME].files["README.md"].decode()
    (result,) = ModelCard(card).data.eval_results
    assert (result.dataset_type, result.metric_value) == ("drawn scenes of dept-vl", 43.8)
    assert result.dataset_name == "vqa (drawn scenes of dept-vl, 2,000 rows)"
    assert "| Data | drawn scenes of dept-vl |" in card
    scored["config"]["data"]["dir"] = "/data/vqa"
    (run / "results-test.json").write_text(json.dumps(scored))
    push_run(run, NAME)
    assert ModelCard(hub.repositories[NAME].files["README.md"].decode()).data.eval_results is None


def test_a_shared_run_answers_in_python_as_it_did(hub, tmp_path):
    run = save_run(tmp_path / "run", "rte", "demo")
    model = dept_vl.load(run, device="cpu")
    assert model.push_to_hub(NAME, licence="mit") == f"{hub.endpoint}/{NAME}"
    for name in FILES[1:]:
        assert hub.repositories[NAME].files[name] == (run / name).read_bytes()
    texts = ("the cube is red", "the ball is blue")
    assert dept_vl.load(NAME, device="cpu").score(*texts) == model.score(*texts)


def test_a_run_of_a_task_of_one_s_own_takes_its_declaration_along_and_leaves_its_rows(hub, tmp_path):
    task = tmp_path / "mood.yaml"
    task.write_text("{name: mood, kind: text-label, template: '{text}', target: mood, labels: [good, bad]}")
    run = save_run(tmp_path / "run", str(task), "demo", **{"data.rows": str(tmp_path), "data.image_dir": str(tmp_path)})
    push_run(run, NAME)
    shutil.rmtree(run)
    task.unlink()
    assert dept_vl.load(NAME, device="cpu").score(text="what a day").keys() == {"good", "bad"}
    config = read_run_config(find_run(NAME))
    assert (config.declaration.name, config.data.rows, config.data.image_dir) == ("mood", None, None)
    for name, content in hub.repositories[NAME].files.items():
        assert str(tmp_path).encode() not in content, name


def test_rows_from_the_hub_are_named_to_others_too(hub, tmp_path):
    push_run(save_run(tmp_path / "run", "rte", "demo", **{"data.rows": "me/rows"}), NAME)
    assert read_run_config(find_run(NAME)).data.rows == "me/rows"


def test_a_branch_is_made_and_found(hub, trained, pushed):
    main_files = pushed.files
    url = push_run(trained, NAME, settings=BACKBONE, revision="v2", licence="mit")
    assert url == f"{hub.endpoint}/{NAME}/tree/v2"
    assert pushed.files == main_files
    assert find_run(f"{NAME}@v2") == find_run(NAME, revision="v2") != find_run(NAME)
    card = pushed.commits[pushed.branches["v2"]]["README.md"].decode()
    assert f"dept_vl.load('{NAME}@v2')" in card


def test_a_private_run_is_made_private_and_never_pushed_to_what_everybody_sees(hub, trained, pushed):
    push_run(trained, "me/secret", settings=BACKBONE, private=True)
    assert hub.repositories["me/secret"].private
    commits = dict(pushed.commits)
    with pytest.raises(ConfigError, match=r"me/adapter: is on the hub already, and public; change that at .*/settings"):
        push_run(trained, NAME, settings=BACKBONE, private=True)
    assert pushed.commits == commits


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("adapter", {}, r"'adapter' is no name for the hub: expected USER/NAME"),
        ("me/a--b", {}, r"'me/a--b' is no name for the hub"),
        (NAME, {"licence": "mti"}, r"licence: 'mti' is none of the hub's names; did you mean 'mit'"),
        (NAME, {"settings": {**BACKBONE, "model.bakbone": "x"}}, r"did you mean 'model.backbone'"),
        ("you/adapter", {}, r"cannot push to you/adapter: .* answers HTTP 403: .* allowed to write there"),
        (NAME, {"token": "wrong"}, r"cannot push to me/adapter: .* answers HTTP 401: .* log in anew"),
    ],
)
def test_what_cannot_be_pushed_is_said_and_nothing_is_made(hub, trained, name, options, says):
    with pytest.raises(ConfigError, match=says):
        push_run(trained, name, **{"settings": BACKBONE, **options})
    assert hub.repositories == {}


def test_nobody_pushes_offline_or_without_being_logged_in(hub, trained, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="without being logged in: `hf auth login`"):
        push_run(trained, NAME, settings=BACKBONE)
    offline(monkeypatch)
    with pytest.raises(ConfigError, match="cannot push while HF_HUB_OFFLINE=1"):
        push_run(trained, NAME, settings=BACKBONE)
    assert hub.requests == []


def test_a_hub_that_is_not_there_is_named(hub, trained):
    hub.close()
    with pytest.raises(ConfigError, match=f"cannot push to {NAME}: {hub.endpoint} is not reached: "):
        push_run(trained, NAME, settings=BACKBONE)


def test_a_folder_is_a_folder_and_paths_are_not_asked_for(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "adapter").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_run(NAME) == Path(NAME)
    assert find_run("~/me") == tmp_path / "me"
    for name in ("absent", "./absent", "runs/a/b", str(tmp_path / "absent"), "runs/a b"):
        assert find_run(name) == Path(name)
    with pytest.raises(ConfigError, match="revision: 'v1' has no effect on the folder me/adapter"):
        find_run(NAME, revision="v1")
    assert hub.requests == []


def test_what_is_neither_a_folder_nor_on_the_hub_is_said(hub, monkeypatch):
    with pytest.raises(CheckpointError, match=r"runs/demo: no such folder here, and no such model at http.*your token"):
        find_run("runs/demo")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match=r"if it is private, log in first: `hf auth login`, or set HF_TOKEN"):
        find_run("runs/demo")


def test_a_private_run_is_found_by_who_may_see_it(hub, trained, monkeypatch):
    push_run(trained, NAME, settings=BACKBONE, private=True)
    assert find_run(NAME).is_dir()
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(CheckpointError, match=r"refuses to show it \(HTTP 401\): your token must be allowed"):
        find_run(NAME)


def test_a_gated_run_says_where_its_terms_are(hub, pushed):
    pushed.gated = True
    with pytest.raises(CheckpointError, match=f"is gated: accept its terms at {hub.endpoint}/{NAME}"):
        find_run(NAME)


def test_a_revision_that_is_not_there_is_named(pushed):
    with pytest.raises(CheckpointError, match=r"me/adapter@v9: me/adapter has no revision 'v9'"):
        find_run(f"{NAME}@v9")
    with pytest.raises(ConfigError, match="expected one revision after the @, got 'v9' and revision='v8'"):
        find_run(f"{NAME}@v9", revision="v8")


def test_a_repository_of_something_else_says_what_is_there(hub):
    hub.repositories["me/peft"] = Repository()
    hub.repositories["me/peft"].commit("main", {"adapter_config.json": b"{}", "adapter_model.safetensors": b""})
    says = r"holds no run of dept-vl: config.yaml missing; there is \.gitattributes, adapter_config.json, adapter_model"
    with pytest.raises(CheckpointError, match=says):
        find_run("me/peft")


def test_only_the_files_of_a_run_are_downloaded(hub, pushed):
    pushed.commit("main", {"evil.py": b"import os", "sub/config.yaml": b"", "config.yaml.bak": b""})
    assert {path.name for path in find_run(NAME).rglob("*")} == set(FILES)
    assert not any("evil" in request for request in hub.requests)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_too_large_is_not_downloaded(hub, pushed, name):
    hub.sizes[NAME, name] = LARGEST_BYTES[name] + 1
    with pytest.raises(CheckpointError, match=rf"{name} has [\d,]+ bytes, at most [\d,]+ are downloaded"):
        find_run(NAME)
    assert not any("resolve" in request for request in hub.requests)


def test_offline_the_cache_s_copy_is_taken(hub, pushed, monkeypatch):
    found = find_run(NAME)
    offline(monkeypatch)
    hub.requests.clear()
    assert find_run(NAME) == find_run(NAME, revision=found.name) == found
    assert hub.requests == []
    with pytest.raises(CheckpointError, match=r"me/other: no such folder .* cache, while HF_HUB_OFFLINE=1 .* unset it"):
        find_run("me/other")
    (found / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"not in the hub's cache"):
        find_run(NAME)


def test_without_a_connection_the_cache_s_copy_is_taken_and_that_is_said(hub, pushed, caplog):
    found = find_run(NAME)
    hub.close()
    with caplog.at_level(logging.INFO):
        assert find_run(NAME) == found
    assert "the hub cannot be asked; taking the copy in its cache" in caplog.text
    with pytest.raises(CheckpointError, match=rf"me/other: .*{hub.endpoint} cannot be reached \(.*name a folder"):
        find_run("me/other")


def test_a_hub_that_is_down_is_said_to_be_and_the_cache_s_copy_is_taken(hub, pushed):
    found = find_run(NAME)
    hub.is_down = True
    assert find_run(NAME) == found
    with pytest.raises(CheckpointError, match=r"answers with an error \(HTTP 503\): .*(Down for maintenance|503)"):
        find_run("me/other")


def test_what_changed_on_the_hub_is_downloaded_again(hub, pushed):
    before = find_run(NAME)
    pushed.commit("main", {"config.yaml": pushed.files["config.yaml"] + b"seed: 1\n"})
    assert find_run(NAME) != before
