"""Results files and official references, scored without a model; JSONL for `predict`."""

import gzip
import json
import os

from tests.bad_inputs.case import Case, copied, cut, gzip_bomb

_QUESTIONS, _ANNOTATIONS = "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"
_GOOD = [{"question_id": q, "answer": "yes"} for q in (1000, 1001, 5000, 5001)]


def _vqa(content, *, output=False):
    """Scores `content` as the predictions of the four raw training questions."""

    def make(folder, base):
        path = folder / "p.json"
        if callable(content):
            path.write_text(json.dumps(_GOOD))
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        words = ["eval", "--task", "vqa", "--predictions", "p.json", "--questions", base.raw / _QUESTIONS]
        return [*words, "--annotations", base.raw / _ANNOTATIONS, "--output", "scores/results.json"]

    return make


def _references(name, spoil):
    """Scores good predictions against a spoiled reference file."""

    def make(folder, base):
        raw = copied(base.raw, folder, "raw")
        (folder / "p.json").write_text(json.dumps(_GOOD))
        spoil(raw / name)
        words = ["eval", "--task", "vqa", "--predictions", "p.json", "--questions", raw / _QUESTIONS]
        return [*words, "--annotations", raw / _ANNOTATIONS]

    return make


def _captions(content):
    def make(folder, base):
        (folder / "p.json").write_text(json.dumps(content))
        references = base.raw / "annotations" / "captions_train2014.json"
        return ["eval", "--task", "coco", "--predictions", "p.json", "--references", references]

    return make


def _wordless(folder, base):
    """Scores captions against references of punctuation alone."""
    (folder / "p.json").write_text(json.dumps([{"image_id": 1, "caption": "a cat"}]))
    references = {"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1, "caption": "..."}]}
    (folder / "references.json").write_text(json.dumps(references))
    words = ["eval", "--task", "coco", "--predictions", "p.json", "--references", "references.json"]
    return [*words, "--output", "scores/results.json"]


def _onto_itself(folder, base):
    (folder / "p.json").write_text(json.dumps(_GOOD))
    return [*_vqa(_GOOD)(folder, base)[:-1], "p.json"]


def _jsonl(content):
    def make(folder, base):
        (folder / "in.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["predict", "--checkpoint", base.text_run, "--input", "in.jsonl", "--output", "out.jsonl"]

    return make


def _official(records):
    def make(folder, base):
        (folder / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return ["predict", "--checkpoint", base.text_run, "--input", "in.jsonl", "--output", "out.json"]

    return make


def _named_pipe(folder, base):
    os.mkfifo(folder / "in.jsonl")
    return ["predict", "--checkpoint", base.text_run, "--input", "in.jsonl"]


def _jsonl_image(record):
    def make(folder, base):
        (folder / "in.jsonl").write_text(json.dumps(record))
        return ["predict", "--checkpoint", base.vqa_run, "--input", "in.jsonl"]

    return make


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _text(text):
    return lambda path: path.write_text(text)


_VQA = {
    "object": ({"1": "yes"}, ("p.json: expected a list",)),
    "number": (3, ("p.json: expected a list",)),
    "records-are-text": (["yes"], ("p.json, record 0",)),
    "id-text": ([{"question_id": "1000", "answer": "yes"}], ("p.json, record 0", '"question_id"')),
    "id-true": ([{"question_id": True, "answer": "yes"}], ("p.json, record 0", '"question_id"')),
    "id-twice": ([_GOOD[0], _GOOD[0]], ("p.json, record 1", "1000 occurs twice")),
    "id-missing": ([{"answer": "yes"}], ("p.json, record 0", 'missing "question_id"')),
    "id-unknown": ([*_GOOD, {"question_id": 9, "answer": "a"}], ("9",)),
    "ids-absent": (_GOOD[:2], ("2",)),
    "answer-null": ([{"question_id": 1000, "answer": None}], ("p.json, record 0", '"answer"')),
    "answer-list": ([{"question_id": 1000, "answer": ["yes"]}], ("p.json, record 0", '"answer"')),
    "answer-missing": ([{"question_id": 1000}], ("p.json, record 0", 'missing "answer"')),
    "empty": (b"", ("p.json: not valid JSON",)),
    "empty-list": ([], ("4",)),
    "nan": (b'[{"question_id": NaN, "answer": "a"}]', ("p.json, record 0", "question_id")),
    "long-number": (b'[{"question_id": ' + b"9" * 5000 + b"}]", ("p.json", "digits")),
    "deep": (b"[" * 90_000, ("p.json", "deeply")),
    "half-a-character": (b'[{"question_id": 1000, "answer": "\\ud800"}]', ("p.json", "half a character")),
    "not-utf-8": (b'[{"question_id": 1000, "answer": "\xff"}]', ("p.json: not UTF-8 text at byte",)),
    "cut": (lambda path: cut(path, 0.6), ("p.json: not valid JSON at byte", "(line 1", "predict --output")),
    "gz-cut": (lambda path: path.write_bytes(gzip.compress(path.read_bytes())[:-12]), ("p.json", "cut short")),
    "gz-damaged": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + b"\xff" * 50), ("p.json", "damaged")),
    "gz-bomb": (lambda path: gzip_bomb(path, 70 << 20), ("p.json", "unpacks to more than")),
    "pipe": (_pipe, ("p.json: cannot be read", "pipe")),
}

_CASES = {
    **{f"predictions/{name}": (_vqa(content), says) for name, (content, says) in _VQA.items()},
    "predictions/absent": (lambda f, b: _vqa(lambda path: path.unlink())(f, b), ("p.json: cannot be read",)),
    "predictions/caption-id": (_captions([{"image_id": 1.5, "caption": "a"}]), ("p.json, record 0", "image_id")),
    "predictions/caption-number": (_captions([{"image_id": 1, "caption": 7}]), ("p.json, record 0", "caption")),
    "references/questions-cut": (_references(_QUESTIONS, lambda p: cut(p, 0.5)), (_QUESTIONS, "not valid JSON")),
    "references/questions-list": (_references(_QUESTIONS, _text("[]")), (_QUESTIONS, '"questions"')),
    "references/annotations-deep": (_references(_ANNOTATIONS, _text("[" * 90_000)), (_ANNOTATIONS, "deeply")),
    "references/annotations-of-others": (
        _references(_ANNOTATIONS, _text('{"annotations": [{"question_id": 3}]}')),
        (_ANNOTATIONS, "annotations[0]", "question_id 3"),
    ),
    "references/captions-without-a-word": (_wordless, ("no reference caption has a word", "image 1: '...'")),
    "predictions/output-onto-itself": (_onto_itself, ("--output: p.json is the file of --predictions",)),
    "predict/not-json": (_jsonl("{'sentence': 1}\n"), ("in.jsonl, line 1",)),
    "predict/second-line": (_jsonl('{"sentence": "a"}\n[]\n'), ("in.jsonl, line 2",)),
    "predict/empty": (_jsonl("\n\n"), ("in.jsonl: no lines",)),
    "predict/not-utf-8": (_jsonl(b'{"sentence": "\xff"}'), ("in.jsonl: not UTF-8",)),
    "predict/gz-cut": (
        _jsonl(gzip.compress(b'{"sentence": "a"}')[:-6]),
        ("in.jsonl: the compressed file is cut short",),
    ),
    "predict/named-pipe": (_named_pipe, ("in.jsonl: cannot be read: is a pipe", "- reads standard input")),
    "predict/official-without-id": (
        _official([{"sentence": "a", "example_id": 1}, {"sentence": "b"}]),
        ("in.jsonl, line 2", '"example_id"'),
    ),
    "predict/official-id-is-text": (_official([{"sentence": "a", "example_id": "1"}]), ("in.jsonl, line 1", "'1'")),
    "predict/official-id-twice": (_official([{"sentence": "a", "example_id": 1}] * 2), ("in.jsonl, line 2", "twice")),
    "predict/references-number": (_jsonl('{"sentence": "a", "references": 3}'), ("in.jsonl, line 1", '"references"')),
    "predict/deep": (_jsonl('{"sentence": ' + "[" * 90_000), ("in.jsonl, line 1", "deeply")),
    "predict/long-number": (_jsonl('{"sentence": ' + "9" * 5000 + "}"), ("in.jsonl, line 1", "digits")),
    "predict/half-a-character": (_jsonl('{"sentence": "\\udc00"}'), ("in.jsonl, line 1", "half a character")),
    "predict/number": (_jsonl('{"sentence": 7}'), ("sentence",)),
    "predict/list": (_jsonl('{"sentence": ["a"]}'), ("sentence",)),
    "predict/object": (_jsonl('{"sentence": {"a": 1}}'), ("sentence",)),
    "predict/column-missing": (_jsonl('{"text": "a"}'), ("sentence",)),
    "predict/column-null": (_jsonl('{"sentence": null}'), ("sentence",)),
    "predict/image-number": (_jsonl_image({"image": 7, "question": "a?"}), ('in.jsonl, line 1: missing "image"',)),
    "predict/image-gone": (_jsonl_image({"image": "x.jpg", "question": "a?"}), ("x.jpg: no such image file",)),
    "predict/image-nul": (_jsonl_image({"image": "a\0.jpg", "question": "a?"}), ("no such image file",)),
    "predict/half-a-character-on-the-line": (
        lambda f, b: ["predict", "--checkpoint", b.text_run, "--column", "sentence=\udcff"],
        ("sentence",),
    ),
    "predict/output-folder-missing": (
        lambda f, b: ["predict", "--checkpoint", b.text_run, "--column", "sentence=a", "--output", "no/where.jsonl"],
        ("no/",),
    ),
}

CASES = [Case(name, make, says) for name, (make, says) in _CASES.items()]
