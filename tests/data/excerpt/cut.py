"""Cuts this folder's files out of the complete real data; nothing is edited by hand.

python -m tests.data.excerpt.cut DATA

DATA is the folder that tests call ``../shared/data``. What is scored is scored by ``record.py``.
"""

import argparse
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

HERE = Path(__file__).parent
VQA_EVERY = 20
IMAGES = {"test": 100, "val": 15, "restval": 15, "train": 10}
NUMBER_WORDS = {"0": "zero", "1": "one", "2": "two", "3": "three"}

RULES: dict[str, Callable[[dict[str, Any]], str]] = {
    "majority": lambda a: a["multiple_choice_answer"],
    "yes": lambda a: "yes",
    "first_annotator": lambda a: a["answers"][0]["answer"],
    "second_annotator": lambda a: a["answers"][1]["answer"],
    "first_annotator_messy": lambda a: f"The {a['answers'][0]['answer'].upper()}!",
    "digit_word": lambda a: NUMBER_WORDS.get(a["multiple_choice_answer"], a["multiple_choice_answer"]),
}
"""Name of a set of predictions -> how one is made from a question's annotation."""

TOKENIZED = (
    "Is the sky blue? Yes, said the old man.", "No.", "what is   this", "naïve café über 東京", "",
    "a very long text " * 20, "a very long text answer:", "answer:", "yes", "no", " yes", "0", "1", "2", "entailment",
    "neutral", "contradiction", "True", "False",
)  # fmt: skip
"""Texts that the tokenizer's excerpt cuts as the whole one does."""

ROWS = {
    "qnli": ("glue_qnli/validation", (0, 1, 2)),
    "superglue-boolq": ("super_glue_boolq/validation", (2644,)),
    "superglue-wsc": ("super_glue_wsc/validation", (0,)),
    "winogrande": ("winogrande/validation", (0, 1, 2)),
}
"""Task -> the file of its rows, and which are taken; the licence of each allows it (README.md)."""


WSC_ROWS = (0, 1, 2, 3, 13, 16, 21, 23, 25, 26, 28, 29, 33, 52)
"""Of WSC's training rows: four plain ones, and ten with a span in another case than in the text."""


def read(path: Path) -> Any:
    """Reads JSON, packed or not."""
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)


def read_lines(path: Path) -> list[Any]:
    """Reads packed JSON lines."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def write(name: str, content: Any) -> None:
    """Writes JSON, packed if the name says so; the same content gives the same bytes."""
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def cut_vqa(data: Path) -> None:
    """Every 20th question with its ten answers, and predictions made of the answers by rule."""
    folder = data / "vqa_v2"
    annotations = read(folder / "vqa_annotatons_test.gzip")["annotations"][::VQA_EVERY]
    asked = {annotation["question_id"] for annotation in annotations}
    questions = [q for q in read(folder / "vqa_questions_test.gzip")["questions"] if q["question_id"] in asked]
    for name, rows in (("questions", questions), ("annotations", annotations)):
        write(f"vqa/{name}.json.gz", {name: [{k: v for k, v in row.items() if k != "split"} for row in rows]})
    for name, rule in RULES.items():
        results = [{"question_id": a["question_id"], "answer": rule(a)} for a in annotations]
        write(f"vqa/results_{name}.json", results)


def cut_captions(data: Path) -> None:
    """Images of every Karpathy split with their captions, a captioner's outputs on the test images, the id lists."""
    records = read(data / "karpathy" / "dataset_coco_subset_rebuilt.json.gz")["images"]
    chosen = [
        record for split, count in IMAGES.items() for record in [r for r in records if r["split"] == split][:count]
    ]
    write("karpathy/dataset_coco.json.gz", {"images": chosen, "dataset": "coco"})
    shutil.copy(data / "karpathy" / "dataset_coco_2records.json", HERE / "karpathy" / "original_records.json")
    ids = {record["cocoid"] for record in chosen}
    official = data / "coco_captions_official"
    for source, target in (("val2017", "val2017"), ("train2017_mini80", "train2017")):
        content = read(official / f"captions_{source}.json.gz")
        content["images"] = [image for image in content["images"] if image["id"] in ids]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
        write(f"captions/captions_{target}.json.gz", content)
    for split in ("test", "val"):
        lines = gzip.decompress((data / "coco_karpathy_test" / f"karpathy_{split}_images.txt.gz").read_bytes())
        kept = [line for line in lines.decode().splitlines() if int(line.split()[1]) in ids]
        (HERE / "karpathy" / f"{split}_images.txt").write_text("\n".join(kept) + "\n")
    test = {record["cocoid"] for record in chosen if record["split"] == "test"}
    outputs = []
    for line in (
        gzip.decompress((data / "coco_karpathy_test" / "VinVL_base_test.tsv.gz").read_bytes()).decode().splitlines()
    ):
        image_id, captions = line.split("\t")
        if int(image_id) in test:
            outputs.append({"image_id": int(image_id), "caption": json.loads(captions)[0]["caption"]})
    write("captions/results_vinvl.json", outputs)


def cut_text(data: Path) -> None:
    """Rows of text tasks, and the numbers that STS-B's sentence pairs were given."""
    folder = data / "nlp" / "hf"
    rows = {name: [read_lines(folder / f"{path}.jsonl.gz")[i] for i in places] for name, (path, places) in ROWS.items()}
    wsc = read_lines(folder / "super_glue_wsc" / "train.jsonl.gz")
    rows["superglue-wsc"] += [wsc[number] for number in WSC_ROWS]
    write("text/rows.json", rows)
    splits = ("train", "validation", "test")
    labels = {row["label"] for split in splits for row in read_lines(folder / "glue_stsb" / f"{split}.jsonl.gz")}
    write("text/stsb_labels.json", sorted(labels))


def cut_released(data: Path) -> None:
    """Settings and scores of every released adapter, and one adapter whole."""
    for folder in sorted((data / "dept_official").iterdir()):
        target = HERE / "dept_official" / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for name in ("adapter_config.json", "test_results.json"):
            shutil.copy(folder / name, target / name)
    shutil.copy(data / "dept_official" / "cola" / "adapter_model.bin", HERE / "dept_official" / "cola")


def cut_tokenizer(data: Path) -> None:
    """The pieces of T5's tokenizer that can be part of `TOKENIZED`, under numbers of their own, with their scores."""
    whole = json.loads((data / "t5_tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    text = "".join(f"▁{word}" for line in TOKENIZED for word in line.split())
    vocabulary = whole["model"]["vocab"]
    kept = vocabulary[:3] + [[piece, score] for piece, score in vocabulary[3:] if piece in text]
    added = [token for token in whole["added_tokens"] if token["id"] < 3]
    # The whole one's normalizer is a table of 400 KB; on these texts NFKC is the same, as the comparison below shows.
    excerpt = {**whole, "added_tokens": added, "normalizer": {"type": "NFKC"}}
    excerpt["model"] = {**whole["model"], "vocab": kept}
    write("t5_tokenizer/tokenizer.json", excerpt)
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write("t5_tokenizer/tokenizer_config.json", {**names, "extra_ids": 0, "tokenizer_class": "PreTrainedTokenizerFast"})
    real = Tokenizer.from_str(json.dumps(whole))
    pieces = {text: real.encode(text).tokens for text in TOKENIZED}
    ours = Tokenizer.from_file(str(HERE / "t5_tokenizer" / "tokenizer.json"))
    assert {text: ours.encode(text).tokens for text in TOKENIZED} == pieces
    write("t5_tokenizer/pieces.json", pieces)


def main() -> None:
    """Writes every file but the recorded scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    for cut in (cut_vqa, cut_captions, cut_text, cut_released, cut_tokenizer):
        cut(data)


if __name__ == "__main__":
    main()
