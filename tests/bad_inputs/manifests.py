"""Prepared splits: altered, renamed, of another task, with rows that lead elsewhere."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq

from dept_vl.data.manifest import METADATA_KEY
from tests.bad_inputs.case import Case, copied, cut, edited, flipped

_LEAVES = (".arrow",)
"""The Arrow copies beside a split are a cache; a damaged split may leave the folder, empty."""


def _train(folder, base, *words):
    return [
        "train", "--task", "vqa", "--data-dir", "data", "--output-dir", "run", "--model.backbone", base.t5,
        "--data.max_source_length", "16", "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4", *words,
    ]  # fmt: skip


def _spoil(spoil, *words):
    """Copies the prepared data without Arrow copies, spoils the training split, and trains."""

    def make(folder, base):
        data = copied(base.data, folder, "data")
        shutil.rmtree(data / "vqa" / ".arrow")
        spoil(data / "vqa" / "train.parquet")
        return _train(folder, base, *words)

    return make


def _table(change):
    def spoil(path):
        table = pq.read_table(path)
        pq.write_table(change(table), path)

    return _spoil(spoil)


def _value(column, value, row=3):
    def change(table):
        rows = table.to_pylist()
        rows[row][column] = value
        return pa.Table.from_pylist(rows, schema=table.schema)

    return _table(change)


def _about(**changes):
    def change(table):
        about = {**json.loads(table.schema.metadata[METADATA_KEY]), **changes}
        return table.replace_schema_metadata({METADATA_KEY: json.dumps(about)})

    return _table(change)


def _two_images(table):
    """Gives every row its image twice, as a task of two images a row has them."""
    for name, kind in (("image_id", pa.int64()), ("image", pa.string())):
        pairs = pa.array([[one, one] for one in table[name].to_pylist()], pa.list_(kind, 2))
        table = table.set_column(table.schema.get_field_index(name), name, pairs)
    return table


def _metadata(content):
    return _table(lambda table: table.replace_schema_metadata(content))


def _no_target(path):
    """Leaves ``val`` without a target."""
    val = path.parent / "val.parquet"
    table = pq.read_table(val)
    rows = [{**row, "targets": [], "target_weights": []} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), val)


def _renamed(path):
    shutil.copy(path.parent / "test.parquet", path)


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _folder(path):
    path.unlink()
    path.mkdir()


def _loop(path):
    path.unlink()
    path.symlink_to(path.name)


def _image_command(value):
    """The image's path is met by `cache-features` and by encoding on the fly too."""

    def make(folder, base):
        words = _value("image", value)(folder, base)
        return ["cache-features", "--task", "vqa", "--config", "demo", *words[3:5], "--workers", "0"]

    return make


def _two_paths(folder, base):
    words = _value("image", "val2014/other.jpg")(folder, base)
    return ["cache-features", "--task", "vqa", "--config", "demo", *words[3:5], "--workers", "0"]


_NAME = "vqa/train.parquet"
_CASES = {
    "renamed": (_spoil(_renamed), (_NAME, "holds split 'test'", "renamed")),
    "no-target": (
        _spoil(_no_target, "--loop.best_metric", "loss"),
        ("loop.best_metric: the loss is taken of targets", "no row of val that is evaluated has one"),
    ),
    "other-task": (_about(task="coco"), (_NAME, "holds split 'train' of task 'coco'")),
    "other-protocol": (_about(protocol="paper"), (_NAME, "'paper'")),
    "task-path": (_about(task="../../etc"), (_NAME, "'../../etc'")),
    "no-metadata": (_metadata({}), (_NAME, "no dept_vl metadata")),
    "metadata-not-json": (_metadata({METADATA_KEY: b"{"}), (_NAME, "no dept_vl metadata")),
    "metadata-deep": (_metadata({METADATA_KEY: b"[" * 90_000}), (_NAME, "no dept_vl metadata")),
    "metadata-unknown-key": (_about(run="rm -rf /"), (_NAME, "no dept_vl metadata")),
    "column-missing": (_table(lambda t: t.drop_columns(["targets"])), (_NAME, "missing column 'targets'")),
    "column-of-the-task-missing": (_table(lambda t: t.drop_columns(["question"])), (_NAME, "'question'")),
    "column-type": (
        _table(lambda t: t.set_column(0, "example_id", t["example_id"].cast(pa.string()))),
        (_NAME, "'example_id' has type string"),
    ),
    "image-id-alone": (_table(lambda t: t.drop_columns(["image"])), (_NAME, "come together")),
    "two-images": (_table(_two_images), (_NAME, "rows have 2 images, expected 1 a row", "prepare the task again")),
    "no-rows": (_table(lambda t: t.slice(0, 0)), (_NAME, "the split is empty")),
    "image-climbs": (_value("image", "../../etc/passwd"), (_NAME + ", record 3", "'image'")),
    "image-absolute": (_value("image", "/etc/passwd"), (_NAME + ", record 3", "'image'")),
    "image-nul": (_value("image", "a\0.jpg"), (_NAME + ", record 3", "'image'")),
    "image-drive": (_value("image", "C:\\x.jpg"), (_NAME + ", record 3", "'image'")),
    "image-empty": (_value("image", ""), (_NAME + ", record 3", "'image'")),
    "cache-image-climbs": (_image_command("x/../../y.jpg"), (_NAME + ", record 3", "'image'")),
    "cache-image-absolute": (_image_command("/etc/passwd"), (_NAME + ", record 3", "'image'")),
    "cache-image-two-paths": (_two_paths, (_NAME, "image ", "other.jpg")),
    "weight-negative": (_value("target_weights", [-1.0, 0.3]), (_NAME + ", record 3", "weight")),
    "weight-nan": (_value("target_weights", [float("nan"), 0.3]), (_NAME + ", record 3", "weight")),
    "weight-infinite": (_value("target_weights", [float("inf"), 0.3]), (_NAME + ", record 3", "weight")),
    "weights-fewer": (_value("target_weights", [1.0]), (_NAME + ", record 3", "differ in number")),
    "empty-file": (_spoil(lambda p: p.write_bytes(b"")), (_NAME, "not a complete Parquet file")),
    "text": (_spoil(lambda p: p.write_text("PAR1 hello PAR1")), (_NAME, "not a complete Parquet file")),
    "pipe": (_spoil(_pipe), (_NAME, "no such prepared split")),
    "folder": (_spoil(_folder), (_NAME, "no such prepared split")),
    "link-loop": (_spoil(_loop), (_NAME, "no such prepared split")),
}


def _text_data(spoil):
    def make(folder, base):
        spoil(copied(base.text_data, folder, "data") / "cola.fixed")
        return [
            "train", "--task", "cola", "--data-dir", "data", "--output-dir", "run", "--model.backbone", base.t5,
            "--data.max_source_length", "16", "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4",
        ]  # fmt: skip

    return make


def _flip(seed):
    return _text_data(lambda prepared: flipped(prepared / "train.parquet", seed, 4))


def _stats(spoil):
    return _text_data(lambda prepared: spoil(prepared / "stats.json"))


def _other_digest(path):
    edited(path, lambda stats: {**stats, "files": {"train": "0" * 64}})


def _other_store(folder, base):
    copied(base.data, folder, "data")
    return _train(folder, base, "--data.feature_dir", "data/vqa")


CASES = [
    *(Case(f"manifest/{name}", make, says, _LEAVES) for name, (make, says) in _CASES.items()),
    *(
        Case(
            f"manifest/cut-at-{share}",
            _spoil(lambda path, share=share: cut(path, share)),
            (_NAME, "not a complete Parquet file"),
            _LEAVES,
        )
        for share in (0.1, 0.5, 0.9, 0.999)
    ),
    *(Case(f"manifest/bit-{seed}", _flip(seed), ("cola.fixed/train.parquet",), _LEAVES) for seed in range(6)),
    Case("manifest/stats-damaged", _stats(lambda path: cut(path, 0.5)), ("cola.fixed/stats.json: damaged",)),
    Case("manifest/stats-of-another", _stats(_other_digest), ("train.parquet: sha256 is ", "says 00000000")),
    Case("manifest/no-store-there", _other_store, ("data/vqa/index.json", "no feature store here")),
]
