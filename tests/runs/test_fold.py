"""A folded run answers as the run does, with a plain backbone that transformers alone reads too."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import dept_vl
from dept_vl.cli import main
from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.inference.evaluate import evaluate_run
from dept_vl.models.build import load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.load import open_backbone
from dept_vl.runs.fold import BACKBONE, TOLERANCE, fold_run
from dept_vl.runs.folder import read_run_config
from dept_vl.settings.load import load_config
from dept_vl.training.trainer import train
from tests.api.saved_runs import save_run
from tests.tuners.adapted import FAMILIES, LIKE_LLAMA, registered

WIDE = {"tuner.sites": ["attn.q", "attn.k", "attn.v", "attn.o", "ff.in", "ff.out"]}
PROMPT = {"tuner.num_virtual_tokens": 3}

FOLDS = {
    "lora": ({"tuner.rank": 3, "tuner.alpha": 3.0, **WIDE}, "folded"),
    "lora with biases": (
        {"tuner.rank": 3, "tuner.alpha": 3.0, "tuner.biases": "all"},
        {"gpt2": "folded", "qwen2": "folded", "other": "bitfit"},
    ),
    "ia3": ({}, "folded"),
    "bitfit": ({}, {"gpt2": "folded", "qwen2": "folded", "other": None}),
    "fine-tuning": ({}, "folded"),
    "dora": ({"tuner.rank": 3, "tuner.alpha": 3.0, **WIDE}, "folded"),
    "rslora": ({"tuner.rank": 3, "tuner.alpha": 2.0, **WIDE}, "folded"),
    "adalora": ({"tuner.rank": 2, "tuner.initial_rank": 3, "tuner.alpha": 3.0, **WIDE}, "folded"),
    "vera": ({"tuner.rank": 5, "tuner.projection_seed": 3, **WIDE}, "folded"),
    "p-tuning": (PROMPT, "prompt-tuning"),
    "ulpt": (PROMPT, "prompt-tuning"),
    "mpt": (PROMPT, "prompt-tuning"),
    "adept": (PROMPT, {"t5": "prompt-tuning", "t5-v1.1": "prompt-tuning", "other": None}),
    "prompt-tuning+lora": (
        {"tuner.parts.prompt-tuning.num_virtual_tokens": 3, "tuner.parts.lora.alpha": 8.0},
        "prompt-tuning",
    ),
    "dept+rslora": (  # DePT at rank 0
        {
            "tuner.parts.dept.budget_tokens": 3,
            "tuner.parts.dept.num_virtual_tokens": 3,
            "tuner.parts.rslora.alpha": 2.0,
        },
        "prompt-tuning",
    ),
    "lora+dora+bitfit": (
        {"tuner.parts.lora.alpha": 8.0, "tuner.parts.dora.alpha": 8.0},
        {"gpt2": "folded", "qwen2": "folded", "other": "bitfit"},
    ),
}
"""What is folded -> its settings, and what is left of it in each family; None where it is refused."""

_THERE = {method.name for method in registered()}
CASES = [
    (name, family, left if isinstance(left, str) else left.get(family, left["other"]))
    for name, (_, left) in FOLDS.items()
    for family in (*FAMILIES, *(LIKE_LLAMA if name in ("lora with biases", "ia3", "bitfit", "fine-tuning") else ()))
    if set(name.split(" ")[0].split("+")) <= _THERE | {"dept", "prompt-tuning"}
]


def run_of(name, folder, backbone, task="cola", **settings):
    method = name.split(" ")[0]
    own = {"tuner.name": method, **FOLDS[name][0], **settings} if name in FOLDS else {"tuner.name": name, **settings}
    return save_run(folder, task, backbone, **own)


def opened(folder):
    config = read_run_config(folder)
    return load_model(folder, config.model)[0]


def text(model, lengths=(6, 3, 1)):
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(2, 32, (len(lengths), max(lengths)), generator=generator)
    mask = torch.tensor([[int(i < length) for i in range(max(lengths))] for length in lengths])
    labels = torch.randint(2, 32, (len(lengths), 4), generator=generator)
    features = None
    if model.feature_dim is not None:
        features = torch.randn(len(lengths), 3, model.feature_dim, generator=generator)
    return ids, mask, labels, features


def assert_close(one, other):
    """Within 1e-5 of the largest."""
    assert (one - other).abs().max() <= 1e-5 * one.abs().max()


def assert_same_answers(one, other):
    ids, mask, labels, features = text(one)
    with torch.no_grad():
        both = [model(ids, mask, labels, features) for model in (one, other)]
    assert_close(both[0].logits, both[1].logits)
    tokens = [model.generate(ids, mask, features, num_beams=2, max_new_tokens=5) for model in (one, other)]
    assert torch.equal(*tokens)
    trie = LabelTrie.build([[5, 6, 1], [5, 7, 8, 1], [9, 1]])
    scores = [model.score_labels(ids, mask, features, labels=trie) for model in (one, other)]
    assert_close(*scores)


def plain_logits(folder, family, ids, labels, prompt):
    """What transformers makes of one text, with nothing of this package's."""
    is_t5 = family.startswith("t5")
    model = (AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM).from_pretrained(folder).eval()
    table = model.get_encoder().embed_tokens if is_t5 else model.get_input_embeddings()
    with torch.no_grad():
        embeds = torch.cat([prompt[None], table(ids)], dim=1)
        if is_t5:
            return model(inputs_embeds=embeds, labels=labels).logits
        behind = model.get_input_embeddings()(labels[:, :-1])
        return model(inputs_embeds=torch.cat([embeds, behind], dim=1)).logits[:, embeds.shape[1] - 1 :]


@pytest.mark.parametrize(("name", "family", "left"), CASES)
def test_a_folded_run_answers_as_the_run(folders, tmp_path, name, family, left):
    run = run_of(name, tmp_path / "run", folders[family])
    before = {path.name: path.read_bytes() for path in folders[family].iterdir()}
    if left is None:
        with pytest.raises(CheckpointError, match=f"cannot be folded: '{name}': "):
            fold_run(run, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    folded = fold_run(run, tmp_path / "out")
    assert folded.left == left
    assert folded.difference <= TOLERANCE * folded.largest
    one, other = opened(run), opened(tmp_path / "out")
    assert other.tuner.config.label == left
    assert_same_answers(one, other)
    frozen = save_run(tmp_path / "frozen", "cola", folders[family], **{"tuner.num_virtual_tokens": 1})
    assert not torch.allclose(one(*text(one)).logits, opened(frozen)(*text(one)).logits, atol=1e-2)
    has_backbone = name not in ("p-tuning", "ulpt", "mpt")
    assert (tmp_path / "out" / BACKBONE).is_dir() == has_backbone == (folded.backbone is not None)
    assert before == {path.name: path.read_bytes() for path in folders[family].iterdir()}
    if "bitfit" not in left:
        ids, _, labels, _ = text(one)
        prompt = other.tuner.as_prompt() if left == "prompt-tuning" else torch.zeros(0, one.backbone.d_model)
        where = tmp_path / "out" / BACKBONE if has_backbone else folders[family]
        expected = one(ids[:1], torch.ones_like(ids[:1]), labels[:1]).logits
        assert_close(expected.detach(), plain_logits(where, family, ids[:1], labels[:1], prompt))
        assert (
            AutoTokenizer.from_pretrained(where).get_vocab()
            == AutoTokenizer.from_pretrained(folders[family]).get_vocab()
        )


@pytest.mark.parametrize("name", ["lora", "vera", "prompt-tuning+lora"])
def test_with_images_the_projection_stays(folders, tmp_path, name):
    run = run_of(name, tmp_path / "run", folders["t5"], task="vqa")
    fold_run(run, tmp_path / "out")
    one, other = opened(run), opened(tmp_path / "out")
    assert_same_answers(one, other)
    left = {key.split(".")[0] for key in load_file(tmp_path / "out" / "adapter_model.safetensors")}
    assert left == ({"visual_projection", "tuner"} if "prompt" in name else {"visual_projection"})
    budget = other.parameter_budget()
    assert budget.groups["visual_projection"] == one.parameter_budget().groups["visual_projection"]


def config_of(name, folder, run_dir, task, **settings):
    return load_config(None, {
        "task": task, "tuner.name": name, "output_dir": str(run_dir), "model.backbone": str(folder),
        "data.max_source_length": 16, "data.max_target_length": 4, "data.batch_size": 8, "loop.max_steps": 3,
        "loop.eval_every_steps": 3, "loop.save_every_steps": 3, "tuner.lr": 0.05, **settings,
    })  # fmt: skip


@pytest.mark.parametrize("task", ["vqa", "cola"])
def test_eval_of_a_folded_run_gives_the_same_scores_and_answers(folders, tmp_path, tiny_data, label_data, task):
    data = tiny_data if task == "vqa" else label_data
    config = config_of("lora", folders["t5"], tmp_path / "run", task)
    train(config, data)
    fold_run(config.run_dir, tmp_path / "out")
    folded = read_run_config(tmp_path / "out")
    assert folded.data == config.data
    both = [evaluate_run(one, data, where) for one, where in ((config, config.run_dir), (folded, tmp_path / "out"))]
    assert both[0].metrics == both[1].metrics
    assert both[0].num_scored == both[1].num_scored > 0
    answers = [json.loads(one.files["predictions"].read_text()) for one in both]
    assert answers[0] == answers[1]


def test_python_and_the_command_line_fold_alike(folders, tmp_path, capsys):
    run = run_of("lora", tmp_path / "run", folders["llama"])
    result = dept_vl.fold(run, tmp_path / "python")
    assert main(["fold", str(run), "--out", str(tmp_path / "shell")]) == 0
    printed = capsys.readouterr().out
    assert "logits differ by" in printed
    assert f"dept-vl eval --checkpoint {tmp_path / 'shell'}" in printed
    assert result.left == "folded"
    weights = [(tmp_path / name / BACKBONE / "model.safetensors").read_bytes() for name in ("python", "shell")]
    assert weights[0] == weights[1]
    asked = [dept_vl.load(where).score(sentence="what color is the cube") for where in (run, tmp_path / "python")]
    assert asked[0].keys() == asked[1].keys()
    for label, score in asked[0].items():
        assert asked[1][label] == pytest.approx(score, rel=1e-5)


def test_an_adapter_of_folded_weights_does_not_fit_the_weights_before(folders, tmp_path):
    """Word embeddings and last norm, which a backbone is told by, are the same in both."""
    run = run_of("lora", tmp_path / "run", folders["t5"])
    fold_run(run, tmp_path / "out")
    with pytest.raises(CheckpointError, match="weights_sha256"):
        load_model(tmp_path / "out", ModelConfig(backbone=str(folders["t5"])))
    with pytest.raises(CheckpointError, match="weights_sha256"):
        load_model(run, ModelConfig(backbone=str(tmp_path / "out" / BACKBONE)))


def test_a_method_trained_on_folded_weights_folds_again(folders, tmp_path):
    fold_run(run_of("lora", tmp_path / "first", folders["t5"]), tmp_path / "one")
    again = run_of("dora", tmp_path / "second", tmp_path / "one" / BACKBONE)
    fold_run(again, tmp_path / "two")
    assert_same_answers(opened(again), opened(tmp_path / "two"))
    hashes = [
        open_backbone(ModelConfig(backbone=str(tmp_path / n / BACKBONE)))[0].weights_sha256 for n in ("one", "two")
    ]
    assert len(set(hashes)) == 2


REFUSED = {
    "dept": ({"tuner.budget_tokens": 12}, r"'dept': A B is added to a token by its place in the text"),
    "dept+lora": ({}, r"'dept\+lora': its part 'dept': A B is added to a token"),
    "prefix-tuning": ({}, r"'prefix-tuning': its keys and values stand before an attention's own"),
    "prompt-tuning": (PROMPT, r"'prompt-tuning': it is plain already"),
    "bitfit": ({}, r"'bitfit': a plain t5 has no biases there"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_plain_form_is_refused_with_the_part_and_the_reason(folders, tmp_path, name):
    settings, message = REFUSED[name]
    run = save_run(tmp_path / "run", "cola", folders["t5"], **{"tuner.name": name, **settings})
    with pytest.raises(CheckpointError, match=f"run: cannot be folded: {message}"):
        fold_run(run, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_folded_run_is_not_folded_and_not_trained(folders, tmp_path, label_data, capsys):
    fold_run(run_of("lora", tmp_path / "run", folders["t5"]), tmp_path / "out")
    with pytest.raises(CheckpointError, match="'folded': it is plain weights already"):
        fold_run(tmp_path / "out", tmp_path / "again")
    words = [
        "train",
        "--task",
        "cola",
        "--tuner",
        "folded",
        "--data-dir",
        str(label_data),
        "--output-dir",
        str(tmp_path / "x"),
    ]
    assert main([*words, "--model.backbone", str(folders["t5"])]) == 2
    assert "trains nothing; choose a method" in capsys.readouterr().err


def test_an_output_folder_with_something_in_it_stays_as_it_is(folders, tmp_path):
    run = run_of("lora", tmp_path / "run", folders["t5"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("here")
    with pytest.raises(DataError, match="the output folder is not empty"):
        fold_run(run, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_weights_that_would_be_rounded_again_are_refused(folders, tmp_path):
    run = run_of("lora", tmp_path / "run", folders["llama"], **{"model.dtype": "bfloat16"})
    with pytest.raises(
        ConfigError, match=r"in bfloat16 they would be rounded again; fold it with --model\.dtype float32"
    ):
        fold_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["fold", str(run), "--out", str(tmp_path / "out"), "--model.dtype", "float32"]) == 0
    assert read_run_config(tmp_path / "out").model.dtype == "float32"


def test_a_checkpoint_in_bfloat16_is_read_back_unrounded(folders, tmp_path):
    """transformers takes the type of the weights from ``config.json``."""
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(folders["llama"]).to(torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(folders["llama"]).save_pretrained(half)
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"
    run = run_of("lora", tmp_path / "run", half)
    fold_run(run, tmp_path / "out")
    assert_same_answers(opened(run), opened(tmp_path / "out"))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out" / BACKBONE).dtype == torch.float32


def test_a_run_without_an_adapter_is_refused(folders, tmp_path, capsys):
    run = run_of("lora", tmp_path / "run", folders["t5"])
    (run / "adapter_model.safetensors").unlink()
    assert main(["fold", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "no adapter here (adapter_model.safetensors is missing)" in capsys.readouterr().err
    assert main(["fold", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "no run here" in capsys.readouterr().err
