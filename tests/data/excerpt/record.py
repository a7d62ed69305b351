"""Records what the official scorers say of this folder's predictions, and the tokens of its captions. Needs Java.

python -m tests.data.excerpt.record --official VQA/PythonEvaluationTools/vqaEvaluation/vqaEval.py \
    --legacy LAVIS/lavis/common/vqa_tools/vqa_eval.py

Writes vqa/scores.json, captions/scores.json and captions/tokens.json.gz. None of this package's code is used.
"""

import argparse
from pathlib import Path
from typing import Any

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from tests.data.evaluators.make_vqa_goldens import evaluate, load_class
from tests.data.excerpt.cut import HERE, RULES, read, write


def record_vqa(official: Path, legacy: Path) -> None:
    """Scores every set of predictions by both scripts, over all, by type and by question, unrounded."""
    annotations = read(HERE / "vqa" / "annotations.json.gz")["annotations"]
    scorers = {"official": load_class(official), "legacy-vlt5": load_class(legacy)}
    scores: dict[str, Any] = {}
    for rule in RULES:
        answers = {row["question_id"]: row["answer"] for row in read(HERE / "vqa" / f"results_{rule}.json")}
        cases = [{**annotation, "prediction": answers[annotation["question_id"]]} for annotation in annotations]
        scores[rule] = {variant: evaluate(scorer, cases) for variant, scorer in scorers.items()}
    write("vqa/scores.json", scores)


def record_captions() -> None:
    """Scores the captioner's outputs, and tokenises them and every reference."""
    references: dict[int, list[dict[str, str]]] = {}
    for year in ("train2017", "val2017"):
        for annotation in read(HERE / "captions" / f"captions_{year}.json.gz")["annotations"]:
            references.setdefault(annotation["image_id"], []).append({"caption": annotation["caption"]})
    outputs = read(HERE / "captions" / "results_vinvl.json")
    predictions = {row["image_id"]: [{"caption": row["caption"]}] for row in outputs}
    tokens, result = PTBTokenizer().tokenize(references), PTBTokenizer().tokenize(predictions)
    truth = {image_id: tokens[image_id] for image_id in result}
    bleu = Bleu(4).compute_score(truth, result, verbose=0)[0]
    scores = {
        "CIDEr": float(Cider().compute_score(truth, result)[0]),
        **{f"BLEU-{n}": score for n, score in enumerate(bleu, start=1)},
        "ROUGE-L": float(Rouge().compute_score(truth, result)[0]),
    }
    write("captions/scores.json", scores)
    pairs = [
        [raw["caption"], tokenized]
        for captions, made in ((references, tokens), (predictions, result))
        for image_id in captions
        for raw, tokenized in zip(captions[image_id], made[image_id], strict=True)
    ]
    write("captions/tokens.json.gz", pairs)


def main() -> None:
    """Writes the recorded scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--legacy", type=Path, required=True)
    arguments = parser.parse_args()
    record_vqa(arguments.official, arguments.legacy)
    record_captions()


if __name__ == "__main__":
    main()
