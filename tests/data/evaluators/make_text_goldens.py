"""Writes text_goldens.json: scores of the released DePT code (``src/metrics.py``, ``src/qa_utils.py``) on drawn labels.

Run with a checkout of ZhengxiangShi/DePT (f0266a7) as the argument; scores are kept on its scale, percent.
"""

import json
import random
import sys
from pathlib import Path

WORDS = ["the", "a", "an", "kettle", "boat", "U.S.", "u.s", "Kell", "kell,", "1962", "3", "May", "tea-pot"]


def draw(rng: random.Random, labels: list[str], count: int, *, noise: list[str]) -> tuple[list[str], list[str]]:
    golds = [rng.choice(labels) for _ in range(count)]
    predictions = [gold if rng.random() < 0.6 else rng.choice(labels + noise) for gold in golds]
    return golds, predictions


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    from src import metrics

    rng = random.Random(7)
    macro = metrics.mean_multiclass_f1(num_classes=3)
    cases = []
    for noise in ([], ["", "2", "true"]):
        golds, predictions = draw(rng, ["0", "1"], 60, noise=noise)
        scores = {
            "accuracy": metrics.accuracy(predictions, golds)["accuracy"],
            "f1": metrics.f1_score_with_invalid(predictions, golds)["f1"],
            "matthews_correlation": metrics.matthews_corrcoef(predictions, golds)["matthews_correlation"],
        }
        cases.append({"kind": "binary", "golds": golds, "predictions": predictions, "scores": scores})
        golds, predictions = draw(rng, ["0", "1", "2"], 60, noise=noise and ["", "3"])
        scores = {
            "accuracy": metrics.accuracy(predictions, golds)["accuracy"],
            "f1_macro": macro(predictions, golds)["f1_multiclass"],
        }
        cases.append({"kind": "cb", "golds": golds, "predictions": predictions, "scores": scores})
        similar = [f"{fifth / 5:.1f}" for fifth in range(26)]
        golds, predictions = draw(rng, similar, 60, noise=noise)
        scores = {
            "pearson": metrics.pearson_corrcoef(predictions, golds)["pearson"],
            "spearman": metrics.spearman_corrcoef(predictions, golds)["spearmanr"],
        }
        cases.append({"kind": "similarity", "golds": golds, "predictions": predictions, "scores": scores})
    several = [[" ".join(rng.choices(WORDS, k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3))] for _ in range(80)]
    answers = [
        rng.choice(g) if rng.random() < 0.4 else " ".join(rng.choices(WORDS, k=rng.randint(0, 4))) for g in several
    ]
    found = metrics.squad(answers, several)
    scores = {"squad_em": float(found["em"]), "squad_f1": float(found["f1"])}
    cases.append({"kind": "squad", "golds": several, "predictions": answers, "scores": scores})
    constant = metrics.pearson_corrcoef(["1.0"] * 3, ["1.0", "2.0", "3.0"])["pearson"]
    cases.append(
        {
            "kind": "constant",
            "golds": ["1.0", "2.0", "3.0"],
            "predictions": ["1.0"] * 3,
            "scores": {"pearson": constant},
        }
    )
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).with_name("text_goldens.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
