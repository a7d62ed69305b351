"""Backbone and CLIP folders whose parts are missing, in another format or of different models; their conversion."""

import json
import os
import pickle

import torch
from safetensors.torch import load_file, save_file

from tests.bad_inputs.case import Case, copied, cut, edited


class _Runs:
    """Unpickled without care, this makes a file called hacked."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


def _train(spoil):
    """Trains on a copy of the tiny T5 that `spoil` has changed."""

    def make(folder, base):
        spoil(copied(base.t5, folder, "t5"))
        return [
            "train", "--task", "vqa", "--data-dir", base.data, "--output-dir", "run", "--model.backbone", "t5",
            "--data.max_source_length", "16", "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4",
        ]  # fmt: skip

    return make


def _command(*words):
    """Gives a copy of the tiny T5 without its tokenizer to another command."""

    def make(folder, base):
        (copied(base.t5, folder, "t5") / "tokenizer.json").unlink()
        copied(base.text_run, folder, "run")
        return [str(getattr(base, word[1:])) if word.startswith("@") else word for word in words]

    return make


def _weights(change):
    def spoil(t5):
        tensors = load_file(t5 / "model.safetensors")
        change(tensors)
        save_file({name: value.clone() for name, value in tensors.items()}, t5 / "model.safetensors", {"format": "pt"})

    return spoil


def _settings(**settings):
    return lambda t5: edited(t5 / "config.json", lambda config: {**config, **settings})


def _pickled(t5, name="pytorch_model.bin"):
    torch.save(load_file(t5 / "model.safetensors"), t5 / name)
    (t5 / "model.safetensors").unlink()


def _index(names):
    def spoil(t5):
        (t5 / "model.safetensors").unlink()
        (t5 / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))

    return spoil


def _vocabulary(words):
    """Puts another vocabulary into tokenizer.json."""

    def spoil(t5):
        def change(content):
            content["model"]["vocab"] = words
            content["added_tokens"] = []

        edited(t5 / "tokenizer.json", change)

    return spoil


def _drop(*names):
    return lambda t5: [(t5 / name).unlink() for name in names]


_SHARED = "shared.weight"
_FOLDERS = {
    "no-tokenizer": (_drop("tokenizer.json", "tokenizer_config.json"), ("'t5'", "no tokenizer there")),
    "no-config": (_drop("config.json"), ("t5/config.json", "no such file")),
    "no-weights": (_drop("model.safetensors"), ("'t5'", "no safetensors weights (model.safetensors) there")),
    "config-list": (lambda t5: (t5 / "config.json").write_text("[]"), ("t5/config.json", "expected an object")),
    "config-deep": (lambda t5: (t5 / "config.json").write_text("[" * 90_000), ("t5/config.json", "deeply")),
    "tokenizer-larger": (
        _settings(vocab_size=20),
        ("the tokenizer of t5 has 28 tokens, the model 20 word embeddings",),
    ),
    "tokenizer-other-words": (_vocabulary({"<unk>": 2}), ("tokenizer of t5 cannot read its own words",)),
    "tokenizer-damaged": (lambda t5: (t5 / "tokenizer.json").write_text("{"), ("'t5'", "tokenizer")),
    "start-missing": (_settings(decoder_start_token_id=None), ("decoder_start_token_id", "None")),
    "end-beyond": (_settings(eos_token_id=99), ("eos_token_id", "99")),
    "end-of-another": (_settings(eos_token_id=5), ("end with token 5", "not the tokenizer of this model")),
    "words-missing": (_weights(lambda tensors: tensors.pop(_SHARED)), ("'t5'", "no word embeddings", _SHARED)),
    "words-differ": (
        _weights(lambda tensors: tensors.update({"decoder.embed_tokens.weight": tensors[_SHARED] + 1})),
        ("shared.weight and decoder.embed_tokens.weight", "differ"),
    ),
    "output-differs": (
        _weights(lambda tensors: tensors.update({"lm_head.weight": tensors[_SHARED] + 1})),
        ("shared.weight and lm_head.weight", "differ"),
    ),
    "pickled": (_pickled, ("pytorch_model.bin is a pickle", "dept-vl convert t5 --out")),
    "gguf": (
        lambda t5: (t5 / "model.safetensors").rename(t5 / "m.gguf"),
        ("m.gguf is GGUF", "dept-vl convert t5/m.gguf --out"),
    ),
    "shard-missing": (_index({_SHARED: "model-1.safetensors"}), ("names model-1.safetensors, which is not there",)),
    "shard-elsewhere": (_index({_SHARED: "../x.safetensors"}), ("../x.safetensors", "expected one beside it")),
    "weights-cut": (
        lambda t5: cut(t5 / "model.safetensors", 0.7),
        ("t5/model.safetensors: has", "bytes, its header announces"),
    ),
    "weights-empty": (lambda t5: (t5 / "model.safetensors").write_bytes(b""), ("not a safetensors file",)),
    "weights-lfs": (
        lambda t5: (t5 / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        ("t5/model.safetensors: a pointer of git-lfs",),
    ),
    "weights-of-another-shape": (_settings(d_ff=32), ("not of the shape its config.json describes", "wi.weight", "32")),
    "vocabulary-null": (_settings(vocab_size=None), ("'t5'", "vocab_size")),
    "width-is-text": (_settings(d_model="wide"), ("'t5'", "d_model")),
    "index-empty": (_index({}), ("model.safetensors.index.json", "no weight_map")),
}

_NO_TOKENIZER = ("'t5'", "no tokenizer there")
_COMMANDS = {
    "eval": (("eval", "--checkpoint", "run", "--model.backbone", "t5"), _NO_TOKENIZER),
    "predict": (
        ("predict", "--checkpoint", "run", "--model.backbone", "t5", "--column", "sentence=is it red"),
        _NO_TOKENIZER,
    ),
    "transfer": (
        (
            "transfer", "--target", "cola", "--sources", "mnli", "--source-runs", "mnli=run",
            "--data-dir", "@text_data", "--model.backbone", "t5",
        ),
        _NO_TOKENIZER,
    ),
    "seeds": (
        ("train", "--task", "cola", "--seeds", "0,1", "--data-dir", "@text_data", "--model.backbone", "t5"),
        _NO_TOKENIZER,
    ),
    "convert-safetensors": (("convert", "t5", "--out", "new"), ("t5", "safetensors already")),
    "convert-nothing": (("convert", "nowhere", "--out", "new"), ("nowhere: no such file or folder",)),
    "convert-taken": (("convert", "t5", "--out", "run"), ("--out: run is not an empty folder",)),
    "convert-text": (("convert", "t5/config.json", "--out", "new"), ("t5/config.json: not weights",)),
    "file-as-backbone": (
        ("train", "--task", "cola", "--data-dir", "@text_data", "--model.backbone", "t5/model.safetensors"),
        ("'t5/model.safetensors'", "it is a file"),
    ),
    "path-as-backbone": (
        ("train", "--task", "cola", "--data-dir", "@text_data", "--model.backbone", "./nowhere"),
        ("'./nowhere'", "no such folder"),
    ),
}  # fmt: skip


def _convert(write, *, keeps=("config.json", "tokenizer.json", "tokenizer_config.json")):
    """Converts a folder whose weights `write` has made."""

    def make(folder, base):
        t5 = copied(base.t5, folder, "t5")
        tensors = load_file(t5 / "model.safetensors")
        for path in t5.iterdir():
            if path.name not in keeps:
                path.unlink()
        write(t5 / "pytorch_model.bin", tensors)
        return ["convert", "t5", "--out", "new"]

    return make


_PICKLES = {
    "runs-code": (lambda path, tensors: torch.save({**tensors, "x": _Runs()}, path), ("nothing in it was executed",)),
    "plain-pickle": (lambda path, tensors: path.write_bytes(pickle.dumps(_Runs())), ("nothing in it was executed",)),
    "a-list": (lambda path, tensors: torch.save([*tensors.values()], path), ("expected tensors by name, got list",)),
    "a-training": (lambda path, tensors: torch.save({"epoch": 3, **tensors}, path), ("'epoch' is int",)),
    "cut": (
        lambda path, tensors: (torch.save(tensors, path), path.write_bytes(path.read_bytes()[:-3000])),
        ("pytorch_model.bin",),
    ),
    "lacks-a-tensor": (
        lambda path, tensors: torch.save({k: v for k, v in tensors.items() if "final" not in k}, path),
        ("'t5'", "do not fill the model", "final_layer_norm"),
    ),
    "lfs-pointer": (
        lambda path, tensors: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        ("git-lfs",),
    ),
}


def _clip(*files):
    """Encodes images with a folder that holds these files."""

    def make(folder, base):
        (folder / "clip").mkdir()
        for name, content in files:
            (folder / "clip" / name).write_bytes(content)
        return ["cache-features", "--task", "vqa", "--data-dir", base.data, "--model.clip.model", "clip"]

    return make


_OPEN_CLIP = json.dumps({"model_cfg": {"embed_dim": 8, "vision_cfg": {"layers": 1}}}).encode()
_CLIPS = {
    "transformers": (
        _clip(("config.json", b'{"architectures": ["CLIPModel"], "model_type": "clip"}'), ("model.safetensors", b"x")),
        ("clip: this is transformers' CLIP format", "--model.image_encoder.pretrained", "dept-vl convert clip --out"),
    ),
    "empty": (_clip(), ("clip/open_clip_config.json: no such file",)),
    "pickled": (
        _clip(("open_clip_config.json", _OPEN_CLIP), ("open_clip_pytorch_model.bin", b"x")),
        ("clip: no weights", "open_clip_pytorch_model.bin is: `dept-vl convert clip --out"),
    ),
    "no-weights": (_clip(("open_clip_config.json", _OPEN_CLIP)), ("clip: no weights",)),
}

CASES = [
    *(Case(f"backbone/{name}", _train(spoil), says, ()) for name, (spoil, says) in _FOLDERS.items()),
    *(Case(f"backbone/{name}", _command(*words), says) for name, (words, says) in _COMMANDS.items()),
    *(Case(f"convert/{name}", _convert(write), says) for name, (write, says) in _PICKLES.items()),
    *(Case(f"clip/{name}", make, says) for name, (make, says) in _CLIPS.items()),
]
