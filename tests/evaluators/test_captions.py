import gc
import gzip
import json
import logging
import math
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dept_vl.errors import ConfigError
from dept_vl.evaluators import EvaluationInput, Reference, evaluate
from dept_vl.evaluators.captions import TOKENIZERS, tokenize_captions
from dept_vl.evaluators.official_files import load_caption_references, load_results

METRICS = ("cider", "bleu", "rouge-l")
GOLDENS = json.loads((Path(__file__).parents[1] / "data" / "evaluators" / "caption_goldens.json").read_text())
PREDICTIONS = [caption["prediction"] for caption in GOLDENS["captions"]]
REFERENCES = [Reference(caption["references"]) for caption in GOLDENS["captions"]]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java, and there is no `java` on the PATH")


@pytest.mark.parametrize("tokenizer", ["ptb", pytest.param("stanford", marks=needs_java)])
def test_scores_equal_pycocoevalcap_with_java(tokenizer):
    captions = tokenize_captions(EvaluationInput(PREDICTIONS, REFERENCES, tokenizer))
    assert [texts[0] for texts in captions.predictions.values()] == GOLDENS["tokenized_predictions"]
    assert list(captions.references.values()) == GOLDENS["tokenized_references"]
    scores = evaluate(METRICS, PREDICTIONS, REFERENCES, tokenizer=tokenizer)
    assert scores == pytest.approx({name: GOLDENS["scores"][name] for name in scores}, abs=1e-12)
    assert list(scores) == ["CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"]


@needs_java
@pytest.mark.slow  # its Java program takes 7 s to load
def test_meteor_equals_pycocoevalcap():
    scores = evaluate(["meteor"], PREDICTIONS, REFERENCES)
    assert scores == pytest.approx({"METEOR": GOLDENS["scores"]["METEOR"]}, abs=1e-12)


@pytest.mark.parametrize("says", ["Error: Unable to access jarfile meteor-1.5.jar", ""])
def test_a_java_program_that_breaks_off_is_a_message_with_its_last_words(says, tmp_path, monkeypatch, capfd):
    """A stand-in for a Java that is broken or too old: it says so and ends."""
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ConfigError, match=f"METEOR's Java program failed .*{says}.*check `java -version`"):
        evaluate(["meteor"], PREDICTIONS, REFERENCES)
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err


def cider_d(predictions, references, sigma=6.0):
    """CIDEr-D written from Vedantam et al. 2015, section 3.2, and its COCO variant, on whitespace tokens."""

    def ngrams(text, n):
        words = text.split()
        return Counter(zip(*(words[i:] for i in range(n)), strict=False))

    total = 0.0
    for prediction, texts in zip(predictions, references, strict=True):
        for n in range(1, 5):
            documents = [set().union(*(ngrams(text, n) for text in others)) for others in references]

            def weigh(counts, documents=documents):
                return {
                    gram: count * math.log(len(documents) / max(1, sum(gram in document for document in documents)))
                    for gram, count in counts.items()
                }

            hypothesis = weigh(ngrams(prediction, n))
            for text in texts:
                reference = weigh(ngrams(text, n))
                norms = math.hypot(*hypothesis.values(), 0) * math.hypot(*reference.values(), 0)
                dot = sum(min(hypothesis[g], reference[g]) * reference[g] for g in hypothesis.keys() & reference.keys())
                gap = len(prediction.split()) - len(text.split())
                total += 10 / 4 / len(texts) * (dot / norms if norms else 0) * math.exp(-(gap**2) / (2 * sigma**2))
    return total / len(predictions)


def test_cider_is_cider_d():
    predictions = ["a red circle above a blue square", "two green circles", "a a a square", "one yellow triangle here"]
    references = [
        ["a red circle is above a square", "a circle and a blue square"],
        ["two green circles", "three green circles on grey"],
        ["a square", "there is one square on white"],
        ["a yellow triangle", "one big triangle here"],
    ]
    scores = evaluate(["cider"], predictions, [Reference(texts) for texts in references])
    assert scores["CIDEr"] == pytest.approx(cider_d(predictions, references), abs=1e-9)


def test_few_images_are_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        assert evaluate(["cider"], ["a cat"], [Reference(["a cat"])]) == {"CIDEr": 0.0}
    assert "CIDEr of 1 image: its document frequencies" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        evaluate(["cider", "bleu"], ["a cat"] * 100, [Reference([f"a cat {i}"]) for i in range(100)])
    assert caplog.text == ""


def test_an_empty_prediction_scores_zero():
    scores = evaluate(METRICS, [""], [Reference(["a cat"])])
    assert max(scores.values()) < 1e-6


def test_perfect_captions():
    texts = [f"a {colour} {shape} on a table" for colour in ("red", "blue", "green") for shape in ("cup", "box")]
    scores = evaluate(METRICS, texts, [Reference([text]) for text in texts])
    assert scores["CIDEr"] == pytest.approx(10.0)
    assert scores["BLEU-4"] == pytest.approx(1.0)
    assert scores["ROUGE-L"] == pytest.approx(1.0)


def test_scorers_print_nothing(capsys):
    evaluate(METRICS, PREDICTIONS, REFERENCES)
    assert capsys.readouterr().out == ""


def test_an_unknown_tokenizer_is_an_error_with_the_near_name():
    with pytest.raises(ConfigError, match="unknown tokenizer 'standford'; did you mean 'stanford'"):
        evaluate(["cider"], ["a"], [Reference(["a"])], tokenizer="standford")


def test_several_caption_scores_share_one_tokenisation(monkeypatch):
    texts = []

    def recorded(captions, tokenize=TOKENIZERS["ptb"]):
        texts.extend(captions)
        return tokenize(captions)

    monkeypatch.setitem(TOKENIZERS, "ptb", recorded)
    together = evaluate(METRICS, PREDICTIONS, REFERENCES)
    assert sorted(texts) == sorted([*PREDICTIONS, *(text for ref in REFERENCES for text in ref.references)])
    alone = [evaluate([name], PREDICTIONS, REFERENCES) for name in METRICS]
    assert {key: value for scores in alone for key, value in scores.items()} == together


def test_importing_the_evaluators_imports_neither_torch_nor_pycocoevalcap():
    code = "import sys, dept_vl.evaluators; print([m for m in ('torch', 'pycocoevalcap', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_real_outputs_give_the_scores_of_pycocoevalcap(excerpt):
    folder = excerpt / "captions"
    references = load_caption_references(folder / "captions_val2017.json.gz")
    outputs = load_results(folder / "results_vinvl.json", "image_id", "caption")
    scores = evaluate(("cider", "bleu", "rouge-l"), list(outputs.values()), [references[i] for i in outputs])
    assert scores == pytest.approx(json.loads((folder / "scores.json").read_text()), abs=1e-12)


def complete_outputs(shared_data, name):
    folder = shared_data / "coco_karpathy_test"
    with gzip.open(folder / name, "rt", encoding="utf-8") as file:
        rows = json.load(file)
    return [row["prediction"] for row in rows], [Reference(row["captions"]) for row in rows]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("magic_result.json.gz", METRICS),
        pytest.param("zerocap_result.json.gz", METRICS, marks=pytest.mark.slow),
    ],
)
def test_all_real_outputs_give_the_recorded_scores(shared_data, name, metrics):
    recorded = json.loads((shared_data / "coco_karpathy_test" / "scores.json").read_text())[name.removesuffix(".gz")]
    names = {"CIDEr": "CIDEr", "ROUGE-L": "ROUGE_L", **{f"BLEU-{n}": f"Bleu_{n}" for n in range(1, 5)}}
    scores = evaluate(metrics, *complete_outputs(shared_data, name))
    for key, value in scores.items():
        assert value == pytest.approx(recorded["computed"][names[key]], abs=1e-6)
        if "published" in recorded:
            assert round(value, 3) == recorded["published"][names[key]]
