"""Makes vqa_goldens.json: VQA accuracies from the official script and from the older one that LAVIS carries.

    python make_vqa_goldens.py --official VQA/PythonEvaluationTools/vqaEvaluation/vqaEval.py \
        --legacy LAVIS/lavis/common/vqa_tools/vqa_eval.py

The first file is Python 2: its print statements are removed before it is executed.
"""

import argparse
import contextlib
import copy
import io
import json
import random
import re
from pathlib import Path

PIECES = [
    "the ",
    "a ",
    "An ",
    " ",
    "\n",
    "\t",
    ".",
    "..",
    ",",
    "1,000 ",
    "!",
    "?",
    "-",
    " -",
    "- ",
    "/",
    "'",
    '"',
    "two",
    "none",
    "Ten",
    "dont",
    "lets",
    "she's",
    "somebody'd",
    "ow's'at",
    "yall",
    "é",
    "3",
    "3.5",
    ".5",
    "5.",
    "_",
    "@",
    "$",
    "%",
    ":",
    "#",
    "&",
    "(",
    ")",
    "[",
    ";",
    ">",
    "+",
    "=",
    "`",
    "\\",
    "{",
    "won't",
    "wont",
    "x",
    ". ",
    "12:30",
    "t-shirt",
]
PLAIN = [
    "yes",
    "no",
    "2",
    "black and white",
    "tennis racket",
    "t-shirt",
    "the cat",
    "10:30",
    "1,000",
    "none",
    "a",
    "p.m.",
]


def load_class(path: Path) -> type:
    """Returns the class VQAEval of a file."""
    source = re.sub(r'(?m)^(\s*)print ".*"$', r"\1pass", path.read_text(encoding="utf-8"))
    names: dict = {}
    exec(compile(source, str(path), "exec"), names)
    return names["VQAEval"]


class Answers:
    """What the script needs of a VQA object."""

    def __init__(self, qa: dict) -> None:
        self.qa = qa

    def getQuesIds(self) -> list:  # noqa: N802 (the script's name)
        return list(self.qa)


def messy(text: str, rng: random.Random) -> str:
    """Returns `text` with odd pieces put in."""
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice(PIECES) + text[place:]
    return text


def make_cases(rng: random.Random) -> list[dict]:
    """Returns questions with ten answers, a third of them unanimous, and a prediction each."""
    cases = []
    for number in range(150):
        base = [messy(rng.choice(PLAIN), rng) for _ in range(rng.choice((1, 2, 3)))]
        answers = [rng.choice(base) for _ in range(10)]
        with_ids = number % 10 != 0
        records = [
            {
                "answer": answer,
                **({"answer_id": i} if with_ids else {"answer_confidence": rng.choice(("yes", "maybe"))}),
            }
            for i, answer in enumerate(answers, start=1)
        ]
        prediction = rng.choice((rng.choice(answers), messy(rng.choice(answers), rng), answers[0].upper()))
        cases.append(
            {
                "question_id": number,
                "question_type": rng.choice(("what", "how many")),
                "answer_type": rng.choice(("yes/no", "number", "other")),
                "answers": records,
                "prediction": prediction,
            }
        )
    return cases


def evaluate(evaluator_class: type, cases: list[dict]) -> dict:
    """Returns the unrounded scores."""
    questions = {case["question_id"]: copy.deepcopy(case) for case in cases}
    found = {}

    class Unrounded(evaluator_class):
        def setAccuracy(self, overall, by_question_type, by_answer_type):  # noqa: N802
            def percent(values):
                return 100 * float(sum(values)) / len(values)

            found["questions"] = list(overall)
            found["overall"] = percent(overall)
            found["answer_types"] = {name: percent(values) for name, values in sorted(by_answer_type.items())}
            found["question_types"] = {name: percent(values) for name, values in sorted(by_question_type.items())}

    results = {number: {"answer": case["prediction"]} for number, case in questions.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        Unrounded(Answers(questions), Answers(results)).evaluate()
    return found


def main() -> None:
    """Writes vqa_goldens.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--legacy", type=Path, required=True)
    arguments = parser.parse_args()
    cases = make_cases(random.Random(0))
    official = load_class(arguments.official)
    normalise = official(Answers({}), Answers({}))
    texts = sorted({text for case in cases for text in [case["prediction"], *(a["answer"] for a in case["answers"])]})
    content = {
        "cases": cases,
        "official": evaluate(official, cases),
        "legacy-vlt5": evaluate(load_class(arguments.legacy), cases),
        "normalised": {
            text: normalise.processDigitArticle(
                normalise.processPunctuation(text.replace("\n", " ").replace("\t", " ").strip())
            )
            for text in texts
        },
    }
    Path(__file__).with_name("vqa_goldens.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
