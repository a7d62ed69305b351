"""DePT, its prompt alone and PEFT's prompt tuning on a small decoder-only model: one path from rows to a table."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.real_weights import METHODS, PEFT, PeftRun, main
from tests.models.language.causal_folders import save_tiny_llama

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = save_tiny_llama(tmp_path_factory.mktemp("llama"))
    config = folder / "config.json"  # its positions are rotary, without tensors
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 128}))
    return folder


def test_what_is_scored_is_printed_and_not_trained_again(backbone, label_data, tmp_path, capsys):
    words = ["--backbone", str(backbone), "--data-dir", str(label_data), "--out", str(tmp_path), "--task", "cola"]
    words += ["--steps", "2", "--seeds", "0,1", "--only", f"dept,{PEFT}"]
    main(words)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0] for row in rows] == ["| dept", f"| {PEFT}"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results-test.json")}
    assert len(before) == 4
    main(words)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results-test.json")} == before


def test_the_budgets_are_those_of_twenty_tokens():
    assert "budget_tokens 20" in METHODS["dept"]
    assert "tokens 20" in METHODS["prompt-tuning"]


def test_pefts_likelihoods_are_those_of_each_text_alone(backbone, label_data):
    run = PeftRun(str(backbone), label_data, "cola", seed=0)
    run.train(3)
    sources = [[3, 8, 9], [5, 7, 4, 6, 8, 9], [4, 9]]
    alone = torch.cat([run.likelihoods([source]) for source in sources])
    torch.testing.assert_close(run.likelihoods(sources), alone, atol=0.05, rtol=0.02)  # bfloat16


def test_pefts_prompt_stands_before_the_text(backbone, label_data):
    run = PeftRun(str(backbone), label_data, "cola", seed=0)
    source, label = [5, 7, 4], run.likelihoods([[5, 7, 4]])[0]
    plain = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.bfloat16)
    prompt = run.prompt().to(torch.bfloat16)
    for likelihood, ids in zip(label, run.label_ids(), strict=True):
        words = plain.get_input_embeddings()(torch.tensor([source + ids]))
        scores = plain(inputs_embeds=torch.cat([prompt[None], words], dim=1)).logits[0].float().log_softmax(-1)
        first = len(prompt) + len(source) - 1
        expected = sum(scores[first + place, token] for place, token in enumerate(ids))
        torch.testing.assert_close(likelihood, expected, atol=0.05, rtol=0.02)  # bfloat16
