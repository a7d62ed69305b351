"""`train --dry-run`: what a run will take, measured on its first steps, with nothing written."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from dept_vl.cli import main
from dept_vl.settings.load import load_config
from dept_vl.training.batches import read_steps
from dept_vl.training.forecast import forecast_run
from dept_vl.training.trainer import Trainer


@pytest.fixture
def settings(t5_folder):
    return {
        "model.backbone": str(t5_folder), "data.max_source_length": 16, "data.max_target_length": 4,
        "tuner.num_virtual_tokens": 4, "tuner.rank": 48, "data.batch_size": 8, "data.eval_batch_size": 8,
        "loop.max_steps": 30, "loop.eval_every_steps": 8, "loop.save_every_steps": 10,
    }  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to start in, and an empty cache."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def as_words(settings):
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


def tree(folder: Path):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_it_prints_every_measure_and_writes_nothing(tiny_data, settings, place, capsys):
    shutil.copytree(tiny_data, place / "data")
    before = tree(place)
    words = ["train", "--task", "vqa", "--data-dir", str(place / "data"), "--dry-run", *as_words(settings)]
    assert main(words) == 0
    assert tree(place) == before
    printed = capsys.readouterr().out
    for line in (
        r"forecast of vqa, dept on \S+; nothing is written:",
        r"  steps +30: 4.286 epochs of 60 rows \(7 steps of 8\)",
        r"  rows a step +8",
        r"  text tokens a step +\d+ \(\d+ with padding\)",
        r"  speed +[\d.e+,]+ samples/s, [\d.e-]+ s a step: mean of 3 steps after 1 to warm up",
        r"  training +[\d.e-]+ h \(\d+ s\)",
        r"  evaluations +[\d.e-]+ h \(\d+ s\): 4 of 20 rows of val, .*",
        r"  all of it +[\d.e-]+ h \(\d+ s\)",
        r"  peak memory +\d+\.\d GiB.*",
        r"  disk +[\d.]+ MiB: checkpoints kept: 2, [\d.]+ MiB each",
        r"  run folder +runs/vqa-dept, free",
    ):
        assert re.search(f"^{line}$", printed, re.MULTILINE), (line, printed)


def test_an_arrow_copy_that_is_missing_is_not_made_again(label_data, settings, place):
    shutil.copytree(label_data, place / "data")
    shutil.rmtree(place / "data" / "cola.fixed" / ".arrow")
    before = tree(place)
    words = ["train", "--task", "cola", "--data-dir", str(place / "data"), "--dry-run", *as_words(settings)]
    assert main(words) == 0
    assert tree(place) == before


def test_rows_and_tokens_are_those_of_the_runs_second_to_fourth_step(tiny_data, settings, place):
    config = load_config(None, {"task": "vqa", **settings, "loop.accumulation_steps": 2})
    found = forecast_run(config, lambda: tiny_data).measured
    trainer = Trainer(config, tiny_data)
    steps = list(
        read_steps(trainer.train_set, config.data, config.loop, trainer.accelerator, seed=config.seed, first_step=0)
    )
    masks = [[batch.attention_mask for _, batch in parts] for parts in steps[1:4]]
    assert found.rows == 8
    assert found.text_tokens == pytest.approx(sum(int(mask.sum()) for step in masks for mask in step) / 3)
    assert found.padded_tokens == pytest.approx(sum(mask.numel() for step in masks for mask in step) / 3)


def test_a_run_takes_the_disk_that_was_forecast(tiny_data, settings, place):
    words = ["train", "--task", "vqa", "--data-dir", str(tiny_data), *as_words(settings), "--output-dir", "run"]
    config = load_config(None, {"task": "vqa", **settings})
    found = forecast_run(config, lambda: tiny_data).measured
    assert main(words) == 0
    states = sorted(Path("run/checkpoints").iterdir())
    assert len(states) == found.checkpoints == 2
    headers = 8_000  # names, shapes and counters, of a few tensors
    for state in states:
        size = sum(path.stat().st_size for path in state.iterdir())
        assert found.checkpoint_bytes < size < found.checkpoint_bytes + headers


def test_the_measured_steps_are_the_trainers_own(tiny_data, settings, place, monkeypatch):
    trained = []
    own = Trainer.train_step

    def watched(self, step, parts):
        before = {name: value.detach().clone() for name, value in self.trainable.items()}
        loss = own(self, step, parts)
        trained.append([name for name, value in self.trainable.items() if not torch.equal(before[name], value)])
        return loss

    monkeypatch.setattr(Trainer, "train_step", watched)
    forecast_run(load_config(None, {"task": "vqa", **settings}), lambda: tiny_data)
    assert len(trained) == 4
    assert "tuner.soft_prompt" in trained[0]  # which the optimiser has moved


def test_a_run_shorter_than_the_measured_steps_and_several_tasks(mix_data, settings, place, capsys):
    short = {**settings, "loop.max_steps": 2, "loop.eval_every_steps": 2}
    words = ["train", "--task", "vqa+coco", "--data-dir", str(mix_data), "--dry-run", *as_words(short)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "  steps               2: 0.1818 epochs of 90 rows (11 steps of 8)\n" in printed
    assert ": 1 of 30 rows of val" in printed


def test_a_taken_run_folder_is_said(tiny_data, settings, place, capsys):
    Path("run").mkdir()
    Path("run/config.yaml").write_text("task: vqa\n")
    words = ["train", "--data-dir", str(tiny_data), "--dry-run", "--output-dir", "run", *as_words(settings)]
    assert main(words) == 0
    assert re.search(
        r"run folder +run; the run would be refused: output_dir: run is not empty; add --resume",
        capsys.readouterr().out,
    )
    assert main([*words, "--overwrite"]) == 0
    assert re.search(r"run folder +run, whose run would be replaced", capsys.readouterr().out)
    assert [path.name for path in Path("run").iterdir()] == ["config.yaml"]


def test_without_cached_features_their_size_is_forecast_and_none_is_cached(tiny_data, settings, place, capsys):
    shutil.copytree(tiny_data, place / "data", ignore=shutil.ignore_patterns("features"))
    before = tree(place)
    words = ["train", "--task", "vqa", "--data-dir", str(place / "data"), "--dry-run", *as_words(settings)]
    assert main(words) == 0
    assert tree(place) == before
    printed = capsys.readouterr().out
    assert re.search(r"^  steps +30: 4.286 epochs of 60 rows \(7 steps of 8\)$", printed, re.MULTILINE)
    assert "1.41 MiB: 10 images x 36 tokens x 2,048 numbers of 2 bytes\n" in printed
    assert f"not measured: {place / 'data' / 'features'}: no cached features of the encoder asked for" in printed
    assert "samples/s" not in printed
    assert main([*words, "--model.image_encoder.pooled_grid", "null"]) == 0
    assert "not known before the encoder is loaded: 10 images" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["vqa", "cola"])
def test_data_that_the_run_would_make_first_are_not_made(task, place, capsys):
    data = ["--data-dir", "demo"] if task == "vqa" else []
    assert main(["train", "--task", task, "--dry-run", *data]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  steps +[\d,]+; epochs follow from the rows$", printed, re.MULTILINE)
    assert re.search(rf"^not measured: {place / 'cache'}\S+: not made yet; the run makes it, or `", printed, re.M)
    assert not (place / "cache").exists()
    assert not list(Path().iterdir())


def test_rows_of_ones_own_are_not_prepared(place, settings, capsys):
    Path("rows.csv").write_text("text,label\nred ball,yes\nblue ball,no\n" * 20)
    assert main(["new-task", "--from", "rows.csv", "--kind", "text-label", "--target", "label"]) == 0
    capsys.readouterr()
    assert main(["train", "--task", "rows.yaml", "--rows", "rows.csv", "--dry-run", *as_words(settings)]) == 0
    assert "not made yet" in capsys.readouterr().out
    assert not (place / "cache").exists()


@pytest.mark.parametrize(
    "bad",
    [
        ["--tuner.ranks", "3"],
        ["--data.batch_size", "0"],
        ["--data.batch_size", "6", "--loop.accumulation_steps", "4"],
        ["--loop.best_metric", "cider-like"],
        ["--data-dir", "nowhere"],
        ["--init-from", "nowhere"],
        ["--tuner", "hyperformer"],
    ],
)
def test_what_a_run_refuses_is_refused_alike(bad, tiny_data, settings, place, capsys):
    words = ["train", "--task", "vqa", *as_words(settings)]
    words = [*words, *([] if "--data-dir" in bad else ["--data-dir", str(tiny_data)])]
    if bad[0] in words:
        at = words.index(bad[0])
        del words[at : at + 2]
    if "--tuner" in bad:
        words = ["train", "--task", "vqa", "--data-dir", str(tiny_data)]
    codes, errors = [], []
    for more in ([], ["--dry-run"]):
        codes.append(main([*words, *bad, *more]))
        errors.append(capsys.readouterr().err)
    assert codes == [2, 2]
    assert errors[0] == errors[1]
    assert errors[0].startswith("dept-vl: error: ")


@pytest.mark.parametrize("flag", [["--resume"], ["--seeds", "0,1"]])
def test_what_has_no_effect_beside_it_is_refused(flag, place, capsys):
    assert main(["train", "--dry-run", *flag]) == 2
    assert f"{flag[0]}: has no effect with --dry-run" in capsys.readouterr().err
