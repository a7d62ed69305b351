"""Feature stores: shards and index, met by `train` and by `cache-features --verify`."""

import json
import os
import struct

from tests.bad_inputs.case import Case, copied, cut, edited, flipped

SHARD, INDEX = "00000.safetensors", "index.json"
_STORE = "data/features/random"


def _train(spoil):
    def make(folder, base):
        spoil(copied(base.data, folder, "data") / "features" / "random")
        return [
            "train", "--task", "vqa", "--data-dir", "data", "--output-dir", "run", "--model.backbone", base.t5,
            "--data.max_source_length", "16", "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4",
        ]  # fmt: skip

    return make


def _verify(spoil):
    def make(folder, base):
        spoil(copied(base.data, folder, "data") / "features" / "random")
        return ["cache-features", "--verify", _STORE]

    return make


def header(content: bytes) -> tuple[dict, bytes]:
    """Splits a safetensors file into its header and its values."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(path, change, size=None):
    """Changes a safetensors file's header; `size` is what the file says of the header's length."""
    described, values = header(path.read_bytes())
    text = change(described)
    text = text if isinstance(text, bytes) else json.dumps(described if text is None else text).encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + values)


def _shard(change, size=None):
    return lambda store: with_header(store / SHARD, change, size)


def _index(change):
    return lambda store: edited(store / INDEX, change)


def _field(**changes):
    return _index(lambda index: {**index, **changes})


def _entry(**changes):
    def change(index):
        index["shards"][0] |= changes

    return _index(change)


def _features(**changes):
    def change(described):
        described["features"] |= changes

    return _shard(change)


def _pipe(name):
    def spoil(store):
        (store / name).unlink()
        os.mkfifo(store / name)

    return spoil


def _foreign_index(store):
    (store / INDEX).write_text('{"format": 1, "weight_map": {"a": "model.safetensors"}}')


def _text(name, content):
    return lambda store: (store / name).write_bytes(content)


def _replace(old, new):
    return lambda store: (store / INDEX).write_bytes((store / INDEX).read_bytes().replace(old, new))


_CASES = {
    "index-missing": (lambda s: (s / INDEX).unlink(), ("data/features", "no finished store")),
    "index-foreign": (_foreign_index, ("random/index.json", "damaged index")),
    "index-cut": (lambda s: cut(s / INDEX, 0.9), ("random/index.json", "damaged index")),
    "index-empty": (_text(INDEX, b""), ("random/index.json", "damaged index")),
    "index-list": (_text(INDEX, b"[]"), ("random/index.json", "damaged index")),
    "index-deep": (_text(INDEX, b"[" * 90_000), ("random/index.json", "deeply")),
    "index-pipe": (_pipe(INDEX), ("random/index.json", "pipe")),
    "index-format": (_field(format=99), ("random/index.json", "format 99")),
    "index-tokens-infinite": (_replace(b'"num_visual_tokens":4', b'"num_visual_tokens":Infinity'), ("index.json",)),
    "index-tokens-huge": (_field(num_visual_tokens=10**30), (SHARD, "the index says")),
    "index-tokens-negative": (_field(num_visual_tokens=-4), ("index.json", "-4 visual tokens")),
    "index-dtype": (_field(dtype="float128"), ("index.json", "float128")),
    "index-dtype-code": (_field(dtype="__class__"), ("index.json", "__class__")),
    "index-shard-climbs": (_entry(file="../../../etc/passwd"), ("index.json", "../../../etc/passwd")),
    "index-shard-absolute": (_entry(file="/etc/passwd"), ("index.json", "/etc/passwd")),
    "index-shard-url": (_entry(file="https://example.org/00000.safetensors"), ("index.json", "https://")),
    "index-shard-newline": (_entry(file=SHARD + "\n"), ("index.json", "shard name")),
    "index-shard-missing": (_entry(file="00009.safetensors"), ("00009.safetensors", "no such feature shard")),
    "index-ids-huge": (_entry(image_ids=[10**30, *range(2, 11)]), ("index.json", "image id 1000")),
    "index-ids-twice": (_entry(image_ids=[1, 1, *range(3, 11)]), ("index.json", "image 1 is listed twice")),
    "index-ids-fewer": (_entry(image_ids=[1, 2]), (SHARD, "the index says (2, 4, 6)")),
    "index-size": (_entry(bytes=7), (SHARD, "the index says 7")),
    "shard-missing": (lambda s: (s / SHARD).unlink(), (SHARD, "no such feature shard")),
    "shard-empty": (_text(SHARD, b""), (SHARD, "not a complete safetensors file")),
    "shard-pipe": (_pipe(SHARD), (SHARD, "pipe")),
    "shard-header-huge": (_shard(lambda d: None, size=2**62), (SHARD, "not a complete safetensors file")),
    "shard-header-not-json": (_shard(lambda d: b"{" * 40), (SHARD, "header is damaged")),
    "shard-header-deep": (_shard(lambda d: b"[" * 90_000), (SHARD, "header is damaged")),
    "shard-header-list": (_shard(lambda d: b"[1, 2, 3]"), (SHARD, "header is damaged")),
    "shard-shape-lies": (_features(shape=[10, 4, 7]), (SHARD, "header is damaged")),
    "shard-shape-negative": (_features(shape=[-10, -4, 6]), (SHARD, "header is damaged")),
    "shard-shape-infinite": (_features(shape=[float("inf")]), (SHARD, "header is damaged")),
    "shard-shape-zero": (_features(shape=[0, 10**30], data_offsets=[0, 0]), (SHARD,)),
    "shard-dtype-lies": (_features(dtype="F64"), (SHARD, "header is damaged")),
    "shard-offsets-lie": (_features(data_offsets=[100, 580]), (SHARD,)),
    "shard-offsets-negative": (_features(data_offsets=[-480, 0]), (SHARD, "header is damaged")),
    "shard-of-another-encoder": (
        _shard(lambda d: {**d, "__metadata__": {"dept_vl": '{"fingerprint": {"model": "other"}}'}}),
        (SHARD, "the index says"),
    ),
    "shard-unlabelled": (_shard(lambda d: {k: v for k, v in d.items() if k != "__metadata__"}), (SHARD,)),
}


def _swapped_ids(store):
    """The same bytes as far as the index can see: its hash is that of the altered shard."""
    from dept_vl.system.bounded_reading import hash_file

    edited(store / INDEX, lambda index: index["shards"][0].update(image_ids=[*range(101, 111)]))
    edited(store / INDEX, lambda index: index["shards"][0].update(sha256=hash_file(store / SHARD)))


def _flip(seed):
    return lambda store: flipped(store / SHARD, seed)


CASES = [
    *(Case(f"cache/{name}", _train(spoil), says) for name, (spoil, says) in _CASES.items()),
    *(
        Case(f"cache/shard-cut-at-{share}", _train(lambda s, share=share: cut(s / SHARD, share)), (SHARD,))
        for share in (0.1, 0.5, 0.99)
    ),
    *(Case(f"cache/bit-{seed}", _verify(_flip(seed)), (f"{_STORE}/{SHARD}",)) for seed in range(12)),
    Case("cache/ids-not-the-shards", _verify(_swapped_ids), (f"{_STORE}/{SHARD}", "image 1", "image 101")),
    Case("cache/verify-nothing", lambda folder, base: ["cache-features", "--verify", "no"], ("no/index.json",)),
    Case(
        "cache/verify-with-settings",
        lambda folder, base: ["cache-features", "--verify", "no", "--data.dir", "x"],
        ("data.dir: has no effect with --verify",),
    ),
]
