"""Makes caption_goldens.json: pycocoevalcap's scores, with its own tokenizer, of a few captions. Needs Java.

python make_caption_goldens.py
"""

import json
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

CAPTIONS = {
    9: ("A man's dog (brown) doesn't run.", ["A brown dog isn't running.", "The man's dog stands still!"]),
    3: ("two red circles and a blue square", ["Two red circles, one blue square.", "A blue square by 2 circles"]),
    5: ("", ["A small green triangle.", "There is a triangle on grey"]),
    7: ("A black-and-white cat sits", ["A black and white cat sits.", "a cat; black-and-white, sitting", "A cat"]),
    1: ("a a a a a a a a a a a a a", ["A plane flies at 5:30 p.m.", "A plane in the U.S. sky..."]),
    2: ('A sign says "Stop"', ['A sign that says "Stop".', "A stop sign\non a pole"]),
}


def main() -> None:
    """Writes caption_goldens.json beside this file."""
    references = {key: [{"caption": text} for text in texts] for key, (_, texts) in CAPTIONS.items()}
    predictions = {key: [{"caption": text}] for key, (text, _) in CAPTIONS.items()}
    gts, res = PTBTokenizer().tokenize(references), PTBTokenizer().tokenize(predictions)
    bleu = Bleu(4).compute_score(gts, res, verbose=0)[0]
    scores = {
        "CIDEr": float(Cider().compute_score(gts, res)[0]),
        **{f"BLEU-{n}": score for n, score in enumerate(bleu, start=1)},
        "ROUGE-L": float(Rouge().compute_score(gts, res)[0]),
        "METEOR": Meteor().compute_score(gts, res)[0],
    }
    content = {
        "captions": [{"prediction": text, "references": texts} for text, texts in CAPTIONS.values()],
        "tokenized_predictions": [res[key][0] for key in CAPTIONS],
        "tokenized_references": [gts[key] for key in CAPTIONS],
        "scores": scores,
    }
    Path(__file__).with_name("caption_goldens.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
