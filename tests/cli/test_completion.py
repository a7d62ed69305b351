"""`dept-vl completion`: a static script, by which bash itself completes commands, flags, tasks and settings."""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from dept_vl.cli import main, make_parser
from dept_vl.cli.completion import SHELLS, completion_script
from dept_vl.tasks import task_names

COMPLETE = Path(__file__).with_name("complete.sh")
BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="no bash here")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "dept-vl.bash"
    path.write_text(completion_script("bash"), encoding="utf-8")
    return path


@pytest.fixture
def complete(script, tmp_path, monkeypatch):
    """Returns what bash offers for the last of some words, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        done = subprocess.run(
            [str(BASH), str(COMPLETE), str(script), "dept-vl", *words], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.split()

    return run


@needs_bash
def test_every_command_is_completed(complete):
    _, commands = make_parser()
    assert set(complete("")) <= set(commands)
    assert {"train", "eval", "cache-features", "completion"} <= set(complete(""))
    assert complete("cache") == ["cache-features"]


@needs_bash
@pytest.mark.parametrize("words", [("train", "--task"), ("eval", "--task"), ("prepare", "--task"), ("tasks",)])
def test_task_names_are_completed_wherever_a_task_is_named(words, complete):
    assert complete(*words, "") == task_names()
    assert complete(*words, "sst") == ["sst2"]


@needs_bash
def test_a_task_or_a_configuration_may_be_a_file(complete):
    Path("my_task.yaml").write_text("name: my_task\n")
    Path("my_task.csv").write_text("a,b\n")
    assert complete("train", "--task", "my_") == ["my_task.yaml"]
    assert complete("train", "--config", "my_") == ["my_task.yaml"]
    assert "vqa/dept" in complete("train", "--config", "vqa/")


@needs_bash
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("train", "--tuner", "ulp"), ["ulpt"]),
        (("train", "--dry"), ["--dry-run"]),
        (("train", "--optim.warmup_s"), ["--optim.warmup_steps"]),
        (("train", "--optim.schedule", ""), ["linear", "cosine", "constant"]),
        (("train", "--tuner.allow_nearest", ""), ["true", "false"]),
        (("eval", "--split", "t"), ["train", "test"]),
        (("eval", "--optim."), []),  # which eval does not read
        (("completion", ""), [*SHELLS]),
    ],
)
def test_flags_settings_and_their_values_are_completed(words, found, complete):
    assert complete(*words) == found


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(shell, capsys):
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == completion_script(shell) + "\n"


def test_the_zsh_script_names_commands_tasks_and_settings():
    text = completion_script("zsh")
    assert text.startswith("#compdef dept-vl\n")
    assert f"({' '.join(task_names())})" in text
    for word in ("cache-features", "--tuner.rank", "--dry-run", "(linear cosine constant)"):
        assert word in text


def test_making_a_script_leaves_the_commands_as_they_are(capsys):
    completion_script("bash")
    assert main(["train", "--optim.schedule", "cubic", "--task", "cola"]) == 2
    assert "optim.schedule" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, capsys):
    own = metadata.version

    def version(name):
        if name == "shtab":
            raise metadata.PackageNotFoundError(name)
        return own(name)

    monkeypatch.setattr(metadata, "version", version)
    assert main(["completion", "bash"]) == 2
    wanted = "dept-vl: error: `dept-vl completion` needs shtab, which is not installed; run: pip install "
    assert capsys.readouterr().err.startswith(wanted)


@pytest.mark.parametrize("words", [["completion", "bash"], ["completion", "zsh"], ["configs", "--schema"]])
def test_no_torch_is_imported(words):
    script = (
        "import sys\nfrom dept_vl.cli import main\n"
        f"assert main({words!r}) == 0\nassert not {{'torch', 'transformers', 'datasets'}} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
