"""Settings files and command lines."""

import gzip
import os

from tests.bad_inputs.case import Case


def _yaml(content, command=("info",)):
    def make(folder, base):
        data = content if isinstance(content, bytes) else content.encode()
        (folder / "c.yaml").write_bytes(data)
        return [*command, "--config", "c.yaml"]

    return make


def _laughs() -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines) + "\n"


def _folder(folder, base):
    (folder / "c.yaml").mkdir()
    return ["info", "--config", "c.yaml"]


def _pipe(folder, base):
    os.mkfifo(folder / "c.yaml")
    return ["info", "--config", "c.yaml"]


def _loop(folder, base):
    (folder / "c.yaml").symlink_to("d.yaml")
    (folder / "d.yaml").symlink_to("c.yaml")
    return ["info", "--config", "c.yaml"]


def _extends(files, command=("info",)):
    """Makes settings files by their names, `c.yaml` the one that is given."""

    def make(folder, base):
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        return [*command, "--config", "c.yaml"]

    return make


_EXTENDS = {
    "itself": ({"c": "extends: c.yaml\n"}, ("c.yaml: extends: leads back to itself",)),
    "in-a-circle": (
        {"c": "extends: d.yaml\n", "d": "extends: [c.yaml]\n"},
        ("extends: leads back to itself", "d.yaml ->"),
    ),
    "missing": ({"c": "extends: d.yaml\n"}, ("c.yaml: extends: 'd.yaml': no such file beside it",)),
    "a-number": ({"c": "extends: 3\n"}, ("c.yaml: extends: expected a file, or a list of files, got 3",)),
    "no-mapping": ({"c": "extends: d.yaml\n", "d": "[1]\n"}, ("d.yaml: expected a mapping",)),
    "another-method": (
        {"c": "extends: d.yaml\ntuner: {name: lora}\n", "d": "tuner: {name: dept, rank: 3}\n"},
        ("c.yaml", "tuner.name: 'lora' was asked for", "tuner.rank"),
    ),
    "nine-times-nine-times": (
        {"c": "extends: f9.yaml\n", "f0": "seed: 1\n"}
        | {f"f{n}": f"extends: [{', '.join([f'f{n - 1}.yaml'] * 9)}]\n" for n in range(1, 10)},
        ("c.yaml: extends: leads to more than 100 files",),
    ),
    "steps-and-epochs": (
        {"c": "loop: {epochs: 3, max_steps: 5}\n"},
        ("give loop.max_steps or loop.epochs, one of them",),
    ),
}


def _words(*words):
    return lambda folder, base: list(words)


_TEXTS = {
    "scalar": ("just words", ("c.yaml: expected a mapping", "str")),
    "list": ("- task: vqa\n", ("c.yaml: expected a mapping", "list")),
    "number": ("42\n", ("c.yaml: expected a mapping", "int")),
    "tabs": ("task: vqa\n\toptim: {}\n", ("c.yaml: not valid YAML", "line 2")),
    "unclosed": ("tuner: {lr: 0.3\n", ("c.yaml: not valid YAML", "line 2")),
    "python-object": ("task: !!python/object/apply:os.system ['touch hacked']\n", ("c.yaml: not valid YAML", "python")),
    "python-name": ("task: !!python/name:os.system\n", ("c.yaml: not valid YAML", "python/name")),
    "two-documents": ("task: vqa\n---\ntask: coco\n", ("c.yaml: not valid YAML", "line 2")),
    "unhashable-key": ("{[1, 2]: 3}\n", ("c.yaml: not valid YAML", "unhashable")),
    "billion-laughs": (_laughs(), ("c.yaml: not valid YAML", "aliases")),
    "billion-merges": (
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)),
        ("c.yaml: not valid YAML", "aliases"),
    ),
    "cyclic-list": ("task: &a [*a]\n", ("c.yaml: not valid YAML", "refers to what contains it")),
    "cyclic-mapping": ("&a {optim: *a}\n", ("c.yaml: not valid YAML", "refers to what contains it")),
    "unknown-alias": ("task: *nobody\n", ("c.yaml: not valid YAML", "undefined alias 'nobody'")),
    "deep": ("task: " + "[" * 3_000 + "]" * 3_000, ("c.yaml: not valid YAML", "deeply")),
    "long-number": ("seed: " + "9" * 5000 + "\n", ("c.yaml: not valid YAML", "digits")),
    "bad-date": ("task: 2020-13-45\n", ("c.yaml: not valid YAML", "month")),
    "task-is-a-date": ("task: 2020-01-02\n", ("unknown task '2020-01-02'",)),
    "task-is-a-list": ("task: [vqa, coco]\n", ("unknown task",)),
    "task-is-null": ("task: null\n", ("unknown task 'None'",)),
    "nan-rate": ("tuner: {lr: .nan}\n", ("c.yaml", "tuner.lr", "nan")),
    "infinite-rate": ("tuner: {lr: .inf}\n", ("c.yaml", "tuner.lr", "inf")),
    "nan-decay": ("optim: {weight_decay: .nan}\n", ("c.yaml", "optim.weight_decay", "nan")),
    "nan-alpha": ("tuner: {alpha: .nan}\n", ("c.yaml", "tuner.alpha", "nan")),
    "huge-rank": ("tuner: {rank: 1000000000000}\n", ("c.yaml", "tuner.rank", "1000000000000")),
    "huge-prompt": ("tuner: {num_virtual_tokens: 99999999999}\n", ("c.yaml", "tuner.num_virtual_tokens")),
    "huge-length": ("data: {max_source_length: 99999999999999}\n", ("c.yaml", "data.max_source_length")),
    "huge-batch": ("data: {batch_size: 99999999999999999999}\n", ("c.yaml", "data.batch_size")),
    "huge-seed": ("seed: 340282366920938463463374607431768211456\n", ("c.yaml", "seed")),
    "negative-seed": ("seed: -1\n", ("c.yaml", "seed", "-1")),
    "fraction-of-a-step": ("loop: {max_steps: 2.5}\n", ("c.yaml", "loop.max_steps", "2.5")),
    "group-is-a-list": ("optim: [0.3]\n", ("c.yaml", "optim", "[0.3]")),
    "group-is-text": ("data: nothing\n", ("c.yaml", "data", "'nothing'")),
    "group-is-null": ("loop: null\n", ("c.yaml", "loop", "None")),
    "tuner-is-text": ("tuner: dept\n", ("c.yaml", "tuner", "'dept'")),
    "tuner-name-is-a-list": ("tuner: {name: [dept]}\n", ("c.yaml", "tuner")),
    "unknown-key": (
        "optim: {projecton_lr: 1}\n",
        ("c.yaml", "optim.projecton_lr", "did you mean 'optim.projection_lr'"),
    ),
    "number-as-key": ("1: 2\n", ("c.yaml", "1")),
    "null-as-key": ("null: 2\n", ("c.yaml",)),
    "long-value": ("surprise: " + "x" * 100_000 + "\n", ("c.yaml", "surprise: unknown setting", "...")),
    "duplicate-keys": ("seed: 1\nseed: 2\n", ("c.yaml: not valid YAML", "seed", "twice")),
    "output-dir-nul": ('output_dir: "a\\0b"\n', ("output_dir: holds a NUL character",)),
    "data-dir-nul": ('data: {dir: "a\\0b"}\n', ("data.dir: holds a NUL character",)),
    "remote-code": ("model: {trust_remote_code: true}\n", ("c.yaml", "model.trust_remote_code: unknown setting")),
}

_BYTES = {
    "binary": (bytes(range(256)) * 4, ("c.yaml",)),
    "nul": (b"task: v\0qa\n", ("c.yaml: not valid YAML", "position 7")),
    "latin-1": ("task: Größe\n".encode("latin-1"), ("c.yaml: cannot read", "UTF-8")),
    "utf-16-cut": ("task: vqa\n".encode("utf-16")[:-1], ("c.yaml: cannot read", "UTF-16")),
    "gz-bomb": (gzip.compress(b"# comment\n" * 200_000), ("c.yaml: cannot read", "unpacks to more than 1,048,576")),
    "huge": (b"# comment\n" * 200_000, ("c.yaml: cannot read", "larger than 1,048,576 bytes")),
}

_LINES = {
    "deep-brackets": (("info", "--tuner.rank", "[" * 3000), ("tuner.rank",)),
    "laughs": (("info", "--tuner.rank", _laughs().replace("\n", ", ").join("{}")), ("tuner.rank", "...")),
    "group-as-value": (("info", "--optim.", "1"), ("optim.",)),
    "only-a-dot": (("info", "--.", "1"), (".",)),
    "nan": (("train", "--data-dir", "x", "--lr", "nan"), ("--lr (tuner.lr)", "nan")),
    "long-number": (("train", "--data-dir", "x", "--seed", "9" * 5000), ("--seed",)),
    "home-of-nobody": (("train", "--data-dir", "~nobody-here/x"), ("--data-dir (data.dir)", "~nobody-here")),
    "home-of-nobody-as-flag": (("eval", "--checkpoint", "~nobody-here/x"), ("--checkpoint", "~nobody-here")),
    "rate-is-text": (("train", "--data-dir", "x", "--lr", "abc"), ("--lr (tuner.lr): should be", "'abc'")),
    "tracker-unknown": (
        ("train", "--data-dir", "x", "--loop.trackers", "wandbb"),
        ("--loop.trackers: should be", "'tensorboard', 'wandb' or 'trackio'", "'wandbb'"),
    ),
    "store-and-encoder": (
        (
            "train",
            "--task",
            "vqa",
            "--data-dir",
            "x",
            "--data.feature_dir",
            "x/features",
            "--data.visual_features",
            "encode",
        ),
        ("data.feature_dir: ", "x/features: is not read where data.visual_features is 'encode'; leave one"),
    ),
    "not-read": (("predict", "--image", "x.jpg", "--lr", "99"), ("--lr: `dept-vl predict` does not read",)),
    "sweep-trials": (
        ("sweep", "--config", "sweeps/paper", "--task", "cola", "--sweep.trials", "-1"),
        ("--sweep.trials", "-1"),
    ),
    "seeds-negative": (("train", "--data-dir", "x", "--seeds", "0,-1"), ("--seeds", "-1")),
    "seeds-twice": (("train", "--data-dir", "x", "--seeds", "1,1"), ("--seeds", "[1, 1]")),
    "seeds-path": (("train", "--data-dir", "x", "--seeds", "../../etc"), ("--seeds", "../../etc")),
    "seeds-huge": (("train", "--data-dir", "x", "--seeds", "9" * 5000), ("--seeds", "numbers")),
    "few-shot-zero": (("train", "--task", "cola", "--data-dir", "x", "--few-shot", "0"), ("data.few_shot", "0")),
    "few-shot-text": (("train", "--task", "cola", "--data-dir", "x", "--few-shot", "many"), ("data.few_shot", "many")),
    "task-path": (("train", "--task", "../../etc/passwd", "--data-dir", "x"), ("unknown task '../../etc/passwd'",)),
    "task-absolute": (("prepare", "--task", "/etc", "--raw", "x", "--out", "y"), ("unknown task '/etc'",)),
    "task-nul": (
        ("tasks", "co\0la"),
        (
            "'co\\x00la'",
            "NUL",
        ),
    ),
    "target-path": (("transfer", "--target", "../x", "--sources", "cola"), ("unknown task '../x'",)),
    "source-path": (("transfer", "--target", "cb", "--sources", "/etc/cola"), ("unknown task '/etc/cola'",)),
    "source-run-path": (
        ("transfer", "--target", "cb", "--sources", "cola", "--source-runs", "../x=runs/a"),
        ("unknown task '../x'",),
    ),
    "source-run-without-name": (
        ("transfer", "--target", "cb", "--sources", "cola", "--source-runs", "runs/a"),
        ("--source-runs", "TASK=RUN", "'runs/a'"),
    ),
    "output-dir-nul": (("train", "--config", "demo", "--output-dir", "a\0b"), ("'a\\x00b'", "NUL")),
    "checkpoint-nul": (("eval", "--checkpoint", "a\0b"), ("'a\\x00b'", "NUL")),
    "metric-path": (
        ("eval", "--task", "coco", "--predictions", "p", "--references", "r", "--metric", "../bleu"),
        ("../bleu",),
    ),
    "report-table-path": (("report", "--paper", "../../etc/passwd"), ("../../etc/passwd",)),
    "report-run-missing": (("report", "--paper", "table1", "nowhere"), ("nowhere",)),
}


def _scores(name, text):
    def make(folder, base):
        (folder / "run").mkdir()
        (folder / "run" / name).write_text(text)
        return ["report", "--paper", "table1", "run"]

    return make


_RESULTS, _SEEDS, _TRANSFER = "results-test.json", "seeds.json", "transfer.json"
_SCORES = {
    "not-json": (_RESULTS, "{", ("run/results-test.json: cannot read scores",)),
    "a-list": (_RESULTS, "[]", ("run/results-test.json: cannot read scores",)),
    "score-is-text": (
        _RESULTS, '{"metrics": {"accuracy": "high"}, "config": {"task": "rte"}}', ("results-test.json", "'high'"),
    ),
    "score-is-nan": (
        _RESULTS, '{"metrics": {"accuracy": NaN}, "config": {"task": "rte"}}', ("results-test.json", "a score is nan"),
    ),
    "setting-unknown": (
        _RESULTS, '{"metrics": {"accuracy": 1}, "config": {"task": "rte", "sed": 1}}', ("run/results", "sed: unknown"),
    ),
    "data-is-a-number": (
        _RESULTS, '{"metrics": {"accuracy": 1}, "config": {"task": "rte"}, "data": 3}', ("run/results", "cannot read"),
    ),
    "no-settings-anywhere": (_RESULTS, '{"metrics": {"accuracy": 1}}', ("run: no run here (config.yaml is missing)",)),
    "seeds-of-a-path": (
        _SEEDS, '{"metrics": {}, "config": {"task": "rte"}, "runs": [{"seed": "../../x"}]}', ("seeds.json: cannot",),
    ),
    "source-is-a-path": (
        _TRANSFER, '{"best_source": "../../x", "config": {"task": "rte"}, "starts": {}}', ("unknown task '../../x'",),
    ),
}  # fmt: skip


def _other_source(folder, base):
    """A finished source run, and no data of the target."""
    return [
        "transfer", "--target", "rte", "--sources", "cola", "--source-runs", f"cola={base.text_run}", "--data-dir",
        str(base.text_data), "--model.backbone", str(base.t5), "--output-dir", "out",
    ]  # fmt: skip


def _resumed_transfer(folder, base):
    (folder / "out").mkdir()
    (folder / "out" / "transfer.yaml").write_text("sources: {cola: {tuner: {nmae: dept}}}\ntask: rte\n")
    return [
        "transfer", "--target", "rte", "--sources", "cola", "--resume", "--output-dir", "out", "--data-dir", "x",
    ]  # fmt: skip


def _sweep(text):
    def make(folder, base):
        (folder / "s.yaml").write_text(text)
        return ["sweep", "--config", "s.yaml", "--data-dir", "x"]

    return make


_SWEEPS = {
    "no-section": ("task: cola\n", ("s.yaml", "no section 'sweep'")),
    "section-is-a-list": ("sweep: [1]\n", ("s.yaml", "no section 'sweep'")),
    "space-is-a-list": ("sweep: {space: [1]}\n", ("s.yaml", "sweep.space")),
    "space-empty": ("sweep: {space: {}}\n", ("s.yaml", "names no setting")),
    "space-unknown": ("sweep: {space: {optim.lr: [1]}}\n", ("s.yaml", "optim.lr", "not a setting")),
    "space-output-dir": ("sweep: {space: {output_dir: [../../x]}}\n", ("s.yaml", "output_dir", "cannot be varied")),
    "space-nan": ("sweep: {space: {tuner.lr: [.nan, 0.1]}}\n", ("s.yaml", "tuner.lr", "nan")),
    "space-laughs": ("sweep: {space: {tuner.lr: &a [*a]}}\n", ("s.yaml: not valid YAML",)),
    "space-product": (
        "sweep:\n  space:\n" + "".join(f"    {key}: [{', '.join(str(n / 1000) for n in range(1, 200))}]\n" for key in (
            "tuner.lr", "tuner.lowrank_lr", "optim.projection_lr", "optim.eps")),
        ("s.yaml", "combinations"),
    ),
    "range-reversed": (
        "sweep: {sampler: random, trials: 2, space: {tuner.lr: {low: 1, high: 0}}}\n",
        ("s.yaml", "low < high"),
    ),
    "sampler-unknown": ("sweep: {sampler: magic, space: {tuner.lr: [1]}}\n", ("s.yaml", "sweep.sampler")),
    "trials-negative": ("sweep: {trials: -1, space: {tuner.lr: [1]}}\n", ("s.yaml", "sweep.trials", "-1")),
}  # fmt: skip

CASES = [
    *(Case(f"config/{name}", _yaml(text), says) for name, (text, says) in _TEXTS.items()),
    *(Case(f"config/{name}", _yaml(content), says) for name, (content, says) in _BYTES.items()),
    *(Case(f"config/extends-{name}", _extends(files), says) for name, (files, says) in _EXTENDS.items()),
    Case("config/folder", _folder, ("c.yaml: cannot read", "is a folder")),
    Case("config/pipe", _pipe, ("c.yaml: cannot read", "is a pipe")),
    Case("config/link-loop", _loop, ("c.yaml: cannot read", "symbolic links")),
    *(Case(f"arguments/{name}", _words(*words), says) for name, (words, says) in _LINES.items()),
    *(Case(f"sweep/{name}", _sweep(text), says) for name, (text, says) in _SWEEPS.items()),
    *(Case(f"scores/{name}", _scores(file, text), says) for name, (file, text, says) in _SCORES.items()),
    Case("transfer/target-without-data", _other_source, ("rte.fixed/train.parquet: no such prepared split",)),
    Case(
        "transfer/record-of-an-unknown-setting",
        _resumed_transfer,
        ("out/transfer.yaml", "tuner.nmae"),
    ),
]
