"""Makes official_goldens.json: scores of VizWiz's, GQA's and ScienceQA's own scripts.

    python make_official_goldens.py --vizwiz vlm-evaluation/vlm_eval/util/evaluation/vizwiz/eval.py \
        --gqa vlm-evaluation/vlm_eval/util/evaluation/gqa/eval.py \
        --scienceqa ScienceQA/tools/evaluate_acc.py --scienceqa-prompt ScienceQA/models/base_prompt.py

VizWiz's own API is a zip file without a public repository; in the copy named here the typographic apostrophes of its
contractions are backticks, which are put back. The other two scripts run as they are, but for ScienceQA's assertion
that there are 4,241 results, and its rounding to two decimals.
"""

import argparse
import contextlib
import io
import json
import random
import runpy
import sys
import tempfile
from pathlib import Path

from make_vqa_goldens import messy

WORDS = [
    "yes",
    "no",
    "unanswerable",
    "unsuitable",
    "don’t know",
    "dont know",
    "2",
    "two",
    "t-shirt",
    "the cat",
    "hed go",
]


def vizwiz(path: Path, rng: random.Random) -> dict:
    """Returns questions with ten answers and a prediction, the accuracy of each and the mean."""
    evaluator_class = runpy.run_path(str(path))["VQAEval"]
    cases = []
    for number in range(120):
        base = [messy(rng.choice(WORDS), rng) for _ in range(rng.choice((1, 2, 3)))]
        answers = [rng.choice(base) for _ in range(10)]
        prediction = rng.choice((rng.choice(answers), messy(rng.choice(answers), rng), answers[0].title()))
        cases.append({"image": f"{number}.jpg", "answers": answers, "prediction": prediction})
    golds = {case["image"]: {"answers": [{"answer": answer} for answer in case["answers"]]} for case in cases}
    found = {}

    class Unrounded(evaluator_class):
        def setAccuracy(self, values):  # noqa: N802 (the script's name)
            found.update(questions=list(values), overall=100 * float(sum(values)) / len(values))

    evaluator = Unrounded(golds, {case["image"]: {"answer": case["prediction"]} for case in cases})
    evaluator.contractions = {k.replace("`", "’"): v.replace("`", "’") for k, v in evaluator.contractions.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
    return {"cases": cases, **found}


def gqa(path: Path, rng: random.Random) -> dict:
    """Returns questions with a prediction, and the script's scores in percent."""
    questions, predictions = {}, []
    for number in range(60):
        answer = rng.choice(["yes", "no", "left", "coffee table"])
        questions[f"{number:08}"] = {
            "question": "Is it?",
            "answer": answer,
            "isBalanced": True,
            "semantic": [{"operation": "select", "argument": "it"}],
            "groups": {"global": rng.choice([None, "furniture"])},
            "types": {
                "structural": rng.choice(["query", "verify", "choose"]),
                "semantic": rng.choice(["rel", "attr", "obj"]),
                "detailed": "relO",
            },
        }
        predictions.append(
            {"questionId": f"{number:08}", "prediction": rng.choice([answer, answer, answer.title(), "the " + answer])}
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("questions", questions), ("predictions", predictions)):
            (Path(folder) / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        files = [f"--{name}={folder}/{name}.json" for name in ("questions", "predictions")]
        arguments, sys.argv = sys.argv, [str(path), *files]
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                scores = runpy.run_path(str(path))["scores"]
        finally:
            sys.argv = arguments
    return {
        "questions": questions,
        "predictions": predictions,
        "accuracy": scores["accuracy"],
        "structural": {name: value for name, (value, _) in sorted(scores["accuracyPerStructuralType"].items())},
        "semantic": {name: value for name, (value, _) in sorted(scores["accuracyPerSemanticType"].items())},
    }


def scienceqa(path: Path, prompt: Path, rng: random.Random) -> dict:
    """Returns problems with a predicted index, the script's scores in percent, and its texts of each problem."""
    problems, results = {}, {}
    for number in range(1, 41):
        choices = [f"choice {i}" for i in range(rng.choice([2, 3, 5]))]
        problems[str(number)] = {
            "question": f"Which is {number}?",
            "choices": choices,
            "answer": rng.randrange(len(choices)),
            "hint": rng.choice(["", "Look at  the picture.\nIt is big."]),
            "image": "image.png",
            "subject": rng.choice(["natural science", "social science", "language science"]),
            "topic": "physics",
            "grade": rng.choice(["grade2", "grade8"]),
            "lecture": "",
            "solution": "",
            "split": "test",
        }
        results[str(number)] = rng.randrange(len(choices))
    names: dict = {"__name__": "script"}
    source = path.read_text(encoding="utf-8").replace("assert num == 4241", "pass").replace("{:.2f}", "{!r}")
    exec(compile(source, str(path), "exec"), names)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("data", problems), ("result", {"results": results})):
            (Path(folder) / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        scores = names["get_scores"](f"{folder}/result.json", f"{folder}/data.json")
    texts = runpy.run_path(str(prompt))
    return {
        "problems": problems,
        "results": results,
        "accuracy": float(scores["acc_average"]),
        "subjects": {f"{name} science": float(scores[f"acc_{name}"]) for name in ("language", "natural", "social")},
        "context": {number: texts["get_context_text"](problem, False) for number, problem in problems.items()},
        "options": {number: texts["get_choice_text"](problem, "ABCDE") for number, problem in problems.items()},
    }


def main() -> None:
    """Writes official_goldens.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--vizwiz", "--gqa", "--scienceqa", "--scienceqa-prompt"):
        parser.add_argument(name, type=Path, required=True)
    arguments = parser.parse_args()
    rng = random.Random(0)
    content = {
        "vizwiz": vizwiz(arguments.vizwiz, rng),
        "gqa": gqa(arguments.gqa, rng),
        "scienceqa": scienceqa(arguments.scienceqa, arguments.scienceqa_prompt, rng),
    }
    target = Path(__file__).with_name("official_goldens.json")
    target.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
