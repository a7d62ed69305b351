"""The official raw files of VQA v2, COCO captions and the Karpathy splits."""

import gzip
import os
import shutil
import zipfile

from tests.bad_inputs.case import Case, copied, cut, edited

QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"
CAPTIONS = "captions_train2014.json"
KARPATHY = "dataset_coco.json"


def _path(raw, name):
    return raw / "annotations" / name if name == CAPTIONS else raw / name


def _spoil(task, name, spoil, *options):
    """Copies the raw folder, spoils one file of it, and prepares."""

    def make(folder, base):
        raw = copied(base.raw, folder, "raw")
        spoil(_path(raw, name))
        return ["prepare", "--task", task, "--raw", "raw", "--out", "out", *options]

    return make


def _change(task, name, change):
    return _spoil(task, name, lambda path: edited(path, change))


def _write(content):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _set(key, field, value, number=0):
    def change(content):
        content[key][number][field] = value

    return change


def _drop(key, field, number=0):
    def change(content):
        del content[key][number][field]

    return change


def _twice(key):
    return lambda content: content[key].append(content[key][0])


def _text(old, new):
    """Replaces the first `old` in the file's text: for what Python's own writer would not write."""
    return lambda path: path.write_text(path.read_text().replace(old, new, 1))


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _folder(path):
    path.unlink()
    path.mkdir()


def _zipped(path):
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.json", content)


def _missing_image(folder, base):
    raw = copied(base.raw, folder, "raw")
    shutil.rmtree(raw / "val2014")
    return ["prepare", "--task", "vqa", "--raw", "raw", "--out", "out"]


def _images_loop(folder, base):
    raw = copied(base.raw, folder, "raw")
    shutil.rmtree(raw / "val2014")
    (raw / "val2014").symlink_to("val2014")
    return ["prepare", "--task", "vqa", "--raw", "raw", "--out", "out"]


def _vocabulary(content):
    def make(folder, base):
        (folder / "answers.json").write_text(content)
        return ["prepare", "--task", "vqa", "--raw", base.raw, "--out", "out", "--answer-vocabulary", "answers.json"]

    return make


def _out_taken(folder, base):
    (folder / "out" / "vqa").mkdir(parents=True)
    (folder / "out" / "vqa" / "notes.txt").write_text("mine")
    return ["prepare", "--task", "vqa", "--raw", base.raw, "--out", "out"]


def _out_is_a_file(folder, base):
    (folder / "out").write_text("mine")
    return ["prepare", "--task", "vqa", "--raw", base.raw, "--out", "out"]


_HUGE = 10**30

_VQA = {
    "question-id-text": (QUESTIONS, _set("questions", "question_id", "7"), ('questions, record 0: "question_id"',)),
    "question-id-fraction": (QUESTIONS, _set("questions", "question_id", 7.5), ("record 0", "question_id", "7.5")),
    "question-id-true": (QUESTIONS, _set("questions", "question_id", True), ("record 0", "question_id", "true")),
    "question-id-null": (QUESTIONS, _set("questions", "question_id", None), ("record 0", "question_id", "null")),
    "question-id-twice": (QUESTIONS, _twice("questions"), ("record 4", '"question_id"', "twice")),
    "question-empty": (QUESTIONS, _set("questions", "question", "  "), ("record 0", '"question" is empty')),
    "question-list": (QUESTIONS, _set("questions", "question", ["a"]), ("record 0", '"question" should be a text')),
    "question-missing": (QUESTIONS, _drop("questions", "question", 1), ("record 1", 'missing "question"')),
    "no-questions": (QUESTIONS, lambda c: c.pop("questions") and None, ('missing "questions"',)),
    "questions-object": (QUESTIONS, lambda c: {"questions": {"0": 1}}, ('"questions" should be a list',)),
    "record-is-text": (QUESTIONS, lambda c: {"questions": ["x"]}, ("questions, record 0: expected an object",)),
    "top-is-list": (QUESTIONS, lambda c: c["questions"], ("expected an object", "list")),
    "top-is-null": (QUESTIONS, lambda c: 0, ("expected an object", "int")),
    "answers-empty": (ANNOTATIONS, _set("annotations", "answers", []), ("annotations, record 0", '"answers"')),
    "answers-null": (ANNOTATIONS, _set("annotations", "answers", None), ("record 0", '"answers" should be a list')),
    "answer-is-number": (ANNOTATIONS, _set("annotations", "answers", [{"answer": 3}]), ("record 0", '"answers"')),
    "answer-is-text": (ANNOTATIONS, _set("annotations", "answers", ["yes"]), ("record 0", '"answers"')),
    "type-missing": (ANNOTATIONS, _drop("annotations", "answer_type"), ("record 0", 'missing "answer_type"')),
    "annotation-twice": (ANNOTATIONS, _twice("annotations"), ("annotations, record 4", "twice")),
    "annotation-of-nobody": (ANNOTATIONS, _set("annotations", "question_id", 5), ("record 0", "question 5")),
    "annotation-missing": (ANNOTATIONS, lambda c: c["annotations"].pop() and None, (QUESTIONS, "no annotation")),
    "annotation-other-image": (ANNOTATIONS, _set("annotations", "image_id", 9), ("record 0", '"image_id" is 9')),
    "split-unknown": (KARPATHY, _set("images", "split", "dev"), ("images, record 0", "'dev'")),
    "image-twice": (KARPATHY, _twice("images"), ("images, record 5", "twice")),
    "image-climbs": (KARPATHY, _set("images", "filename", "../../etc/passwd"), ("record 0", "../../etc/passwd")),
    "image-absolute": (KARPATHY, _set("images", "filename", "/etc/passwd"), ("record 0", "/etc/passwd")),
    "image-dots": (KARPATHY, _set("images", "filepath", ".."), ("record 0", "..")),
    "image-nul": (KARPATHY, _set("images", "filename", "a\0b.jpg"), ("record 0", "not a path")),
    "image-backslash": (KARPATHY, _set("images", "filename", "..\\x.jpg"), ("record 0", "not a path")),
    "image-drive": (KARPATHY, _set("images", "filename", "C:x.jpg"), ("record 0", "not a path")),
    "image-empty": (KARPATHY, _set("images", "filename", ""), ("record 0", "not a path")),
    "no-images": (KARPATHY, lambda c: {"images": []}, (KARPATHY, "lists no images")),
    "cocoid-huge": (KARPATHY, _set("images", "cocoid", _HUGE), ("images, record 0", "cocoid")),
}

_COCO = {
    "caption-null": (_set("annotations", "caption", None), ("annotations, record 0", '"caption"')),
    "caption-id-twice": (_twice("annotations"), ("annotations, record 6", "twice")),
    "caption-of-nobody": (_set("annotations", "image_id", 77), (CAPTIONS, "image 77")),
    "image-id-text": (_set("images", "id", "1"), ("images, record 0", '"id"')),
    "caption-id-huge": (_set("annotations", "id", _HUGE), ("annotations, record 0", '"id"')),
    "annotations-null": (lambda c: {**c, "annotations": None}, ('"annotations" should be a list',)),
}

_FILES = {
    "gz-cut": (lambda p: p.write_bytes(gzip.compress(p.read_bytes())[:-9]), (QUESTIONS, "cut short")),
    "zip": (_zipped, (QUESTIONS, "packed file")),
    "latin-1": (lambda p: p.write_bytes(p.read_bytes().replace(b"Is", b"\xe9s", 1)), (QUESTIONS, "UTF-8 text at byte")),
    "empty": (_write(b""), (QUESTIONS, "not valid JSON at byte 0")),
    "html": (_write("<html>404</html>"), (QUESTIONS, "not valid JSON at byte 0")),
    "two-values": (lambda p: p.write_text(p.read_text() + "{}"), (QUESTIONS, "Extra data")),
    "nan-id": (_text('"question_id": 1000', '"question_id": NaN'), ("record 0", "question_id", "NaN")),
    "infinite-id": (_text('"question_id": 1000', '"question_id": -Infinity'), ("record 0", "question_id")),
    "long-number": (_text('"question_id": 1000', '"question_id": ' + "9" * 5000), (QUESTIONS, "digits")),
    "huge-number": (_text('"question_id": 1000', f'"question_id": {_HUGE}'), ("record 0", "question_id", "64 bits")),
    "half-a-character": (_text("Is there", "\\ud800 there"), (QUESTIONS, "half a character")),
    "deep": (_write("[" * 200_000), (QUESTIONS, "nested too deeply")),
    "deep-closed": (_write('{"questions": ' + "[" * 100_000 + "]" * 100_000 + "}"), (QUESTIONS, "nested too deeply")),
    "pipe": (_pipe, (QUESTIONS, "no such raw file")),
    "folder": (_folder, (QUESTIONS, "no such raw file")),
    "control-character": (_text("Is there", "Is\nthere"), (QUESTIONS, "control character")),
}

CASES = [
    *(Case(f"vqa/{name}", _change("vqa", file, change), says) for name, (file, change, says) in _VQA.items()),
    *(Case(f"coco/{name}", _change("coco", CAPTIONS, change), says) for name, (change, says) in _COCO.items()),
    *(Case(f"json/{name}", _spoil("vqa", QUESTIONS, spoil), says) for name, (spoil, says) in _FILES.items()),
    *(
        Case(
            f"json/{name}-cut-at-{share}",
            _spoil(task, name, lambda path, share=share: cut(path, share)),
            (name, "not valid JSON at byte"),
        )
        for task, name in (("vqa", QUESTIONS), ("vqa", ANNOTATIONS), ("vqa", KARPATHY), ("coco", CAPTIONS))
        for share in (0.01, 0.4, 0.8, 0.995)
    ),
    Case("vqa/images-missing", _missing_image, ("val2014/COCO_val2014_000000000002.jpg", "3 of 5 images")),
    Case("vqa/images-link-loop", _images_loop, ("val2014", "images are missing")),
    Case("vqa/vocabulary-numbers", _vocabulary("[1, 2]"), ("answers.json", "list of answers")),
    Case("vqa/vocabulary-empty", _vocabulary('[""]'), ("answers.json", "holds no answer")),
    Case("vqa/out-is-taken", _out_taken, ("out/vqa", "not empty")),
    Case("vqa/out-is-a-file", _out_is_a_file, ("out",)),
]
