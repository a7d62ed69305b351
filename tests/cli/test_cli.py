import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from dept_vl.cli import main
from dept_vl.cli.reads import READS, reads
from dept_vl.settings.load import setting_names
from dept_vl.tasks import TASKS, get_task
from tests.data_prep.text_rows import cola_folder


def run(capsys, *arguments):
    """Returns (exit code, standard output, standard error) of one command."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def train_arguments(t5_folder, tiny_data, tmp_path):
    return [
        "train", "--task", "vqa", "--data-dir", tiny_data, "--output-dir", tmp_path / "run",
        "--model.backbone", t5_folder, "--data.max_source_length", "16",
        "--tuner.budget_tokens", "20", "--tuner.num_virtual_tokens", "4",
        "--data.batch_size", "8", "--loop.max_steps", "2", "--loop.eval_every_steps", "2",
    ]  # fmt: skip


def test_help_is_instant_because_torch_is_not_imported():
    script = (
        "import sys\nfrom dept_vl.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cache-features" in done.stdout


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m dept_vl tasks | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (141, "")


def test_help_of_a_command_lists_the_settings_without_torch():
    script = (
        "import sys\nfrom dept_vl.cli import main\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--tuner.lowrank_lr" in done.stdout


def test_help_lists_what_a_command_reads_and_what_a_flag_takes(capsys):
    shown = {}
    for command in ("train", "eval", "predict", "info", "cache-features"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown[command] = capsys.readouterr().out
    assert "--on-nan {stop,skip}" in shown["train"]
    assert "--few-shot N" in shown["train"]
    assert "--init-from PATH" in shown["train"]
    assert " VALUE" not in "".join(shown.values())
    for command, text in shown.items():
        settings = re.findall(r"^  --([a-z][\w.-]*\.\w+) ", text, re.MULTILINE)
        assert settings
        assert all(reads(command, key) for key in settings)
        assert ("optim.beta1" in settings) == ("loop: " in text and "optim: " in text) == (command == "train")
    assert "--decode.num_beams" in shown["eval"]
    assert "--lr" not in shown["predict"]


def test_what_makes_a_folder_ends_with_the_next_command(capsys, tmp_path):
    raw, out = cola_folder(tmp_path / "raw"), tmp_path / "my data"
    for protocol, more in (("fixed", ""), ("paper", " --data.protocol paper")):
        words = ["--task", "cola", "--raw", raw, "--out", out, "--subset", "--protocol", protocol]
        code, printed, _ = run(capsys, "prepare", *words)
        assert code == 0
        assert printed.splitlines()[-1] == f"next: dept-vl train --task cola --data-dir '{out}'{more}"
    code, printed, _ = run(capsys, "draw-scenes", "--out", tmp_path / "scenes", "--images", "10")
    assert code == 0
    following = printed.splitlines()[-1]
    assert following == f"next: dept-vl prepare --task vqa --raw {tmp_path}/scenes --out {tmp_path}/scenes-prepared"
    code, printed, _ = run(capsys, *shlex.split(following)[2:])
    assert code == 0
    assert printed.splitlines()[-1].startswith("next: dept-vl cache-features --task vqa --data-dir ")


@pytest.mark.parametrize("command", ["eval", "predict", "info", "cache-features"])
def test_what_a_command_is_said_to_read_are_settings(command):
    known = setting_names()
    groups = {key.rpartition(".")[0] for key in known}
    assert [key for key in READS[command] if key not in known and key not in groups] == []


def _main_with_a_third_task(words):
    TASKS["third"] = replace(get_task("vqa"), name="third", reference_files={"answers": "a list of answers"})
    return main(words)


def test_eval_takes_the_reference_files_that_tasks_declare(fresh_process):
    assert fresh_process.run(_main_with_a_third_task, ["eval", "--help"]) == 0
    said = " ".join(fresh_process.printed().split())
    for flag, text in {"answers": "a list of answers", "questions": "VQA questions", "references": "captions_"}.items():
        assert f"--{flag} FILE {text}" in said
    words = ["eval", "--task", "third", "--predictions", "p.json", "--questions", "q.json"]
    assert fresh_process.run(_main_with_a_third_task, words) == 2
    assert "task 'third' with --predictions needs --answers; given: --questions" in fresh_process.printed()


def test_train_then_eval_then_score_the_predictions_file(capsys, train_arguments, tiny_data, tmp_path):
    code, out, _ = run(capsys, *train_arguments)
    assert code == 0
    assert "trained 2 steps" in out
    assert "lowrank" in out
    code, out, _ = run(capsys, "eval", "--task", "vqa", "--checkpoint", tmp_path / "run", "--decode.num_beams", "2")
    assert code == 0
    assert "vqa test: 20 scored" in out
    assert "vqa_accuracy/yes/no" in out
    results = json.loads((tmp_path / "run" / "results-test.json").read_text())
    assert results["num_scored"] == 20
    assert results["config"]["decode"]["num_beams"] == 2
    answers = json.loads((tmp_path / "run" / "predictions-test.json").read_text())
    assert [sorted(answer) for answer in answers] == [["answer", "question_id"]] * 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "x", "--tuner.rank", "31"], "nearest exact"),
        (["--config", "demo", "--model.backbone", "gpt2", "--model.visual_position_bias", "zero"], "T5's"),
    ],
)
def test_what_the_backbone_does_not_allow_is_one_message_and_exit_code_2(capsys, arguments, message):
    code, _, error = run(capsys, "info", *arguments)
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_a_checkpoint_of_another_backbone_is_refused(capsys, train_arguments, t5_v1_1_folder, tmp_path):
    assert run(capsys, *train_arguments)[0] == 0
    code, _, error = run(capsys, "eval", "--checkpoint", tmp_path / "run", "--model.backbone", t5_v1_1_folder)
    assert code == 2
    assert "backbone" in error
    assert not (tmp_path / "run" / "results-test.json").exists()


def test_a_checkpoint_of_another_length_is_refused(capsys, train_arguments, tmp_path):
    assert run(capsys, *train_arguments)[0] == 0
    code, _, error = run(capsys, "eval", "--checkpoint", tmp_path / "run", "--data.max_source_length", "12")
    assert code == 2
    assert "max_source_length" in error


def test_a_run_of_another_task_is_refused(capsys, train_arguments, tmp_path):
    assert run(capsys, *train_arguments)[0] == 0
    code, _, error = run(capsys, "eval", "--task", "coco", "--checkpoint", tmp_path / "run")
    assert code == 2
    assert "was trained on 'vqa', asked for 'coco'" in error


def test_resume_alone_takes_the_runs_own_settings(capsys, train_arguments, tmp_path):
    assert run(capsys, *train_arguments)[0] == 0
    code, out, _ = run(capsys, "train", "--resume", "--output-dir", tmp_path / "run")
    assert code == 0
    assert "trained 2 steps" in out


def test_output_folder_not_empty_is_refused(capsys, train_arguments, tmp_path):
    assert run(capsys, *train_arguments)[0] == 0
    code, _, error = run(capsys, *train_arguments)
    assert code == 2
    assert "is not empty; add --resume" in error


def test_info_prints_the_figures_of_the_papers_table_3(capsys):
    config = "configs/vqa/dept.yaml"
    code, out, _ = run(capsys, "info", "--config", config)
    assert code == 0
    assert "trainable          1,658,112  0.74 % of all 224,561,664" in out
    assert "as Table 3 counts  1,658,112  0.74 % of all 224,616,960" in out
    assert "m = 60, r = 30, s = 256" in out


@pytest.mark.parametrize(
    ("backbone", "frozen"), [("gpt2", "124,439,808"), ("gpt2-medium", "354,823,168"), ("gpt2-large", "774,030,080")]
)
def test_info_counts_a_published_gpt2_without_its_weights(capsys, backbone, frozen):
    given = ("--config", "configs/vqa/dept.yaml", "--model.backbone", backbone, "--tuner.allow_nearest", "true")
    code, out, _ = run(capsys, "info", *given)
    assert code == 0
    assert f"; the backbone has {frozen}\n" in out


def test_vqa_results_file_is_scored_without_a_model(capsys, excerpt, tmp_path):
    folder = excerpt / "vqa"
    answers = json.loads((folder / "results_majority.json").read_text())
    expected = json.loads((folder / "scores.json").read_text())["majority"]["official"]["overall"]
    (tmp_path / "results.json").write_text(json.dumps(answers))
    arguments = [
        "eval", "--task", "vqa", "--predictions", tmp_path / "results.json", "--questions",
        folder / "questions.json.gz", "--annotations", folder / "annotations.json.gz",
        "--output", tmp_path / "scores.json",
    ]  # fmt: skip
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert f"{len(answers)} scored" in out
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"]["vqa_accuracy"] == pytest.approx(expected)
    (tmp_path / "results.json").write_text(json.dumps(answers[:-2]))
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert f"missing for 2 of {len(answers)} questions" in error
    assert run(capsys, *arguments, "--allow-missing")[0] == 0


def stop_at_step(monkeypatch, number):
    """Sends this process SIGTERM before its `number`-th update."""
    step, count = torch.optim.AdamW.step, [0]

    def counted(self, *arguments, **options):
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)


def test_a_stopped_training_exits_143_and_says_how_to_go_on(capsys, monkeypatch, train_arguments):
    stop_at_step(monkeypatch, 1)
    code, _, err = run(capsys, *train_arguments, "--overwrite")
    monkeypatch.undo()
    assert code == 143
    said, _, command = err.splitlines()[-1].partition("; go on with: ")
    assert said == "dept-vl: stopped by SIGTERM; a checkpoint was written after step 1"
    words = shlex.split(command)
    words = words[words.index("train") :]
    assert words == [str(word) for word in (*train_arguments, "--resume")]
    assert run(capsys, *words)[0] == 0


def test_a_command_stopped_with_nothing_to_save_says_to_run_it_again(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("data_prep.prepare.prepare", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    code, _, err = run(capsys, "prepare", "--task", "vqa", "--raw", tmp_path, "--out", tmp_path / "a b")
    assert code == 130
    words = shlex.split(err.splitlines()[-1].partition("; go on with: ")[2])
    assert words[words.index("prepare") :] == [
        "prepare",
        "--task",
        "vqa",
        "--raw",
        str(tmp_path),
        "--out",
        str(tmp_path / "a b"),
    ]


def test_a_folder_s_name_is_taken_as_it_is(capsys, monkeypatch, train_arguments, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("run: 2", "2024", "[a"):
        place = train_arguments.index("--output-dir") + 1
        code, _, err = run(capsys, *train_arguments[:place], name, *train_arguments[place + 1 :])
        assert code == 0, err
        assert (tmp_path / name / "config.yaml").is_file()


def launch(arguments, *, processes=1):
    """Starts the command line in a process group of its own, under torchrun for several processes."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=29873"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "dept_vl", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.distributed
@pytest.mark.parametrize("processes", [1, 2], ids=["loader workers", "torchrun"])
def test_a_signal_to_every_process_of_a_job_saves_a_checkpoint(train_arguments, tmp_path, processes):
    place = train_arguments.index("--loop.max_steps") + 1
    arguments = [*train_arguments[:place], "100000", *train_arguments[place + 1 :], "--data.num_workers", "2"]
    arguments[arguments.index("--loop.eval_every_steps") + 1] = "100000"
    child = launch([*arguments, "--loop.log_every_steps", "1"], processes=processes)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "metrics.jsonl").is_file():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode in (143, 1, -signal.SIGTERM), err  # torchrun reports a failure of its own
    assert err.count("dept-vl: stopped by SIGTERM; a checkpoint was written after step") == 1, err
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
