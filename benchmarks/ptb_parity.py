"""Measures how well the Python PTB tokenizer agrees with the original, on all real captions at hand.

    python -m benchmarks.ptb_parity --data DATA [--show 20] [--scores]

Needs Java. Prints, for each source, how many captions get the same tokens from both tokenizers, every caption that
does not, and with --scores what that does to CIDEr, BLEU and ROUGE-L on real system outputs. Last result in
docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dept_vl.evaluators import Reference, evaluate
from dept_vl.evaluators.ptb_tokenizer import tokenize_ptb
from dept_vl.evaluators.stanford_tokenizer import tokenize_stanford

Outputs = tuple[list[str], list[Reference]]
METRICS = ("cider", "bleu", "rouge-l")


def read_text(path: Path) -> str:
    """Returns the text of a file, compressed or not."""
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix in {".gz", ".gzip"} else raw).decode("utf-8")


def official_captions(path: Path) -> list[str]:
    """Returns the captions of an official COCO captions file."""
    return [annotation["caption"] for annotation in json.loads(read_text(path))["annotations"]]


def karpathy_captions(path: Path) -> list[str]:
    """Returns the raw captions of a file in Karpathy's format."""
    content: Any = json.loads(read_text(path))
    images = content["images"] if isinstance(content, dict) else content
    return [sentence["raw"] for image in images for sentence in image["sentences"]]


def system_outputs(folder: Path) -> dict[str, Outputs]:
    """Returns predictions and references of the systems in coco_karpathy_test."""
    outputs: dict[str, Outputs] = {}
    references: dict[int, Reference] = {}
    for name in ("magic", "zerocap"):
        rows = json.loads(read_text(folder / f"{name}_result.json.gz"))
        outputs[name] = ([row["prediction"] for row in rows], [Reference(row["captions"]) for row in rows])
        references |= {int(row["image_name"][-16:-4]): Reference(row["captions"]) for row in rows}
    lines = (line.split("\t") for line in read_text(folder / "VinVL_base_test.tsv.gz").splitlines())
    captions = {int(image_id): json.loads(text)[0]["caption"] for image_id, text in lines}
    outputs["vinvl"] = (list(captions.values()), [references[image_id] for image_id in captions])
    return outputs


def caption_sources(data: Path) -> dict[str, list[str]]:
    """Returns all real captions of the data folder by where they come from."""
    readers: dict[str, Callable[[Path], list[str]]] = {
        "coco_captions_official/captions_*.gz": official_captions,
        "karpathy/dataset_*.json*": karpathy_captions,
    }
    sources = {
        str(path.relative_to(data)): reader(path)
        for pattern, reader in readers.items()
        for path in sorted(data.glob(pattern))
    }
    for name, (predictions, references) in system_outputs(data / "coco_karpathy_test").items():
        sources[f"coco_karpathy_test: {name} predictions"] = predictions
        sources[f"coco_karpathy_test: {name} references"] = [text for ref in references for text in ref.references]
    rows = json.loads(read_text(data / "coco_fakecap" / "captions_val2014_fakecap_results.json"))
    sources["coco_fakecap"] = [row["caption"] for row in rows]
    return sources


def other_sources(data: Path) -> dict[str, list[str]]:
    """Returns real English text that is not a caption: questions, answers, news, reviews, encyclopedia."""
    sources: dict[str, list[str]] = {}
    for split in ("train", "valid", "test"):
        questions = json.loads(read_text(data / "vqa_v2" / f"vqa_questions_{split}.gzip"))["questions"]
        sources[f"vqa_v2 questions {split}"] = [question["question"] for question in questions]
    for path in sorted((data / "nlp" / "hf").glob("*/*.jsonl.gz")):
        rows = [json.loads(line) for line in read_text(path).splitlines()]
        texts = {text for row in rows for text in row.values() if isinstance(text, str)}
        sources[str(path.relative_to(data))] = sorted(texts)
    return sources


def measure(title: str, sources: dict[str, list[str]], show: int) -> None:
    """Prints the share of equal results by source, and the captions that differ."""
    print(f"{title:58s} {'captions':>9s} {'equal':>9s} {'share':>10s} {'Python s':>9s} {'Java s':>7s}")
    totals = [0, 0, 0.0, 0.0]
    different: dict[str, tuple[str, str]] = {}
    for name, captions in sources.items():
        started = time.perf_counter()
        ours = tokenize_ptb(captions)
        middle = time.perf_counter()
        theirs = tokenize_stanford(captions)
        seconds = (middle - started, time.perf_counter() - middle)
        different |= {c: (a, b) for c, a, b in zip(captions, ours, theirs, strict=True) if a != b}
        equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
        print_row(name, len(captions), equal, *seconds)
        totals = [a + b for a, b in zip(totals, (len(captions), equal, *seconds), strict=True)]
    print_row("all", int(totals[0]), int(totals[1]), *totals[2:])
    print(f"different captions: {len(different)}")
    for caption, (a, b) in list(different.items())[:show]:
        print(f"  {caption!r}\n    here     {a}\n    original {b}")


def print_row(name: str, captions: int, equal: int, python_s: float, java_s: float) -> None:
    """Prints one row of the table of `measure`."""
    print(f"{name:58s} {captions:9d} {equal:9d} {equal / captions:10.4%} {python_s:9.1f} {java_s:7.1f}")


def compare_scores(outputs: dict[str, Outputs]) -> None:
    """Prints each score with both tokenizers, and the difference."""
    for name, (predictions, references) in outputs.items():
        python = evaluate(METRICS, predictions, references, tokenizer="ptb")
        java = evaluate(METRICS, predictions, references, tokenizer="stanford")
        print(f"{name}: {len(predictions)} images")
        for key, value in python.items():
            print(f"  {key:8s} ptb {value:.6f}  stanford {java[key]:.6f}  difference {value - java[key]:+.1e}")


def main() -> None:
    """Runs the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of real captions and texts")
    parser.add_argument("--show", type=int, default=20, help="how many differing captions to print (default: 20)")
    parser.add_argument("--scores", action="store_true", help="compare CIDEr, BLEU and ROUGE-L too (a minute)")
    arguments = parser.parse_args()
    measure("captions", caption_sources(arguments.data), arguments.show)
    measure("other text", other_sources(arguments.data), arguments.show)
    if arguments.scores:
        compare_scores(system_outputs(arguments.data / "coco_karpathy_test"))


if __name__ == "__main__":
    main()
