"""Commands that hand a run on: push, fold, export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dept_vl.cli.settings import add_command, check_paths, config_overrides, next_command, read_name


def _add_push(commands: Any) -> None:
    parser = add_command(commands, "push", _push, "Share a trained run on the Hugging Face hub.")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("repo_id", metavar="USER/NAME", help="its hub id; made if it is not there")
    parser.add_argument(
        "--private", action="store_const", const=True,
        help="only its owner sees it; default: the account's, or as it is already",
    )  # fmt: skip
    parser.add_argument("--licence", "--license", metavar="NAME", help="as the hub calls it; default: the backbone's")
    parser.add_argument("--revision", metavar="BRANCH", help="branch, made if it is not there; default: main")
    parser.add_argument("--message", metavar="TEXT", help="of the commit; default: method and task")


def _push(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.runs.hub import push_run

    url = push_run(
        options.run, options.repo_id,
        private=options.private, licence=options.licence, revision=options.revision, commit_message=options.message,
        settings=config_overrides(options, overrides),
    )  # fmt: skip
    name = f"{options.repo_id}@{options.revision}" if options.revision else options.repo_id
    print(f"pushed: {url}\nin Python: dept_vl.load({name!r})")
    print(next_command("predict", "--checkpoint", name))


def _add_fold(commands: Any) -> None:
    text = "Turn a trained method into plain weights or a plain prompt, where that is exact."
    parser = add_command(commands, "fold", _fold, text)
    parser.add_argument("run", type=read_name, metavar="RUN", help="run folder or hub id")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder")


def _fold(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.runs.hub import find_run
    from dept_vl.runs.refusals import check_fold

    settings = config_overrides(options, overrides)
    run = find_run(options.run)
    check_fold(run, options.out)
    from dept_vl.settings.load import load_config

    config = load_config(run / "config.yaml", settings)
    check_paths(config, run, settings, options.reading)
    from dept_vl.runs.fold import fold_run

    folded = fold_run(run, options.out, config=config)
    print(f"folded: {options.out} ({folded.describe()})")
    print(next_command("eval", "--checkpoint", options.out))


def _add_export(commands: Any) -> None:
    text = "Write a run as embeddings that vLLM reads, with a client; `dept-vl proxy` answers with it."
    parser = add_command(commands, "export", _export, text)
    parser.add_argument(
        "--vllm", type=read_name, required=True, metavar="RUN",
        help="run folder or hub id, of a decoder-only or vision-language backbone",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder")


def _export(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.runs.folder import read_run_config
    from dept_vl.runs.hub import find_run
    from dept_vl.serving.vllm.refusals import check_vllm_export

    settings = config_overrides(options, overrides)
    run = find_run(options.vllm)
    read_run_config(run, "--vllm")
    from dept_vl.settings.load import load_config

    config = load_config(run / "config.yaml", settings)
    check_paths(config, run, settings, options.reading)
    check_vllm_export(run, options.out, config)
    from dept_vl.serving.vllm.export import export_to_vllm

    exported = export_to_vllm(run, options.out, config)
    print(
        f"exported: {options.out} ({exported.num_virtual_tokens} vectors of the prompt, {exported.update_rows} rows of "
        "the update; its README.md says how to use it)"
    )
    for note in exported.notes:
        print(f"note: {note}")
    print(next_command("proxy", "--upstream", "http://127.0.0.1:8000", options.out))


COMMANDS = (_add_push, _add_fold, _add_export)
