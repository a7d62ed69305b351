"""Runs on the Hugging Face hub: finding one by its name, and uploading one. No torch until a run is uploaded.

What is downloaded is data, and read with the same care as any file of a stranger's (docs/security.md): only the files
that a run needs, in sizes that are known before, into the hub's own cache.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.models.adapter.licences import check_licence
from dept_vl.models.adapter.presence import ADAPTER_CONFIG_FILE, WEIGHTS_FILE, require_adapter
from dept_vl.models.language.stored import is_offline
from dept_vl.runs.folder import RUN_CONFIG_FILE, read_run_config, refuse_several
from dept_vl.runs.published import public_config
from dept_vl.strict import expand_home
from dept_vl.system.bounded_reading import MAX_SETTINGS_BYTES
from dept_vl.system.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

    from dept_vl.settings.schema import TrainConfig

logger = logging.getLogger(__name__)

LARGEST_BYTES = {RUN_CONFIG_FILE: MAX_SETTINGS_BYTES, ADAPTER_CONFIG_FILE: MAX_SETTINGS_BYTES, WEIGHTS_FILE: 64 << 30}
"""The files of a run that are downloaded, all of them needed, and the most bytes each may have.

64 GiB are a backbone of 16 billion parameters, all of them trained.
"""

_TIMEOUT_S = 10.0
_NAMED = 8
"""Files that a message names."""


def find_run(name: str | Path, *, revision: str | None = None) -> Path:
    """Returns the local folder of a run that is named by its folder or by its hub id.

    A folder that is there, and what by its form can be a path only, is returned as it is: who reads it says what it
    lacks. A hub id is ``user/name``, or ``user/name@revision``; its files are downloaded once, and again when they
    have changed there. Without a connection those of the cache are taken.

    Args:
        name: Folder or hub id.
        revision: Branch, tag or commit of a hub id; None for that in the name, or the newest.

    Raises:
        CheckpointError: There is no such run on the hub, or it may not be read, cannot be reached, or is not one of
            this package's.
        ConfigError: A revision of a folder is asked for, or two of them.
    """
    text = expand_home(str(name))
    repo_id, at, tail = text.partition("@")
    if os.path.exists(text) or not _is_hub_id(repo_id):
        if revision is not None:
            raise ConfigError(f"revision: {revision!r} has no effect on the folder {text}")
        return Path(text)
    if at and (not tail or revision not in (None, tail)):
        raise ConfigError(f"{text}: expected one revision after the @, got {tail!r} and revision={revision!r}")
    return _download(repo_id, tail or revision)


def _is_hub_id(name: str) -> bool:
    """Returns whether a name is of the form ``user/name``, by the hub's own rules; no such name is a path for sure."""
    if name.count("/") != 1:
        return False  # known without the hub's library, which takes a while to import
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _download(repo_id: str, revision: str | None) -> Path:
    """Returns the snapshot's folder in the hub's cache."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = _api()
    no_connection = cast(type[Exception], HfHubHTTPError.__bases__[0])  # of httpx or httpx2, whichever is installed
    where = f"{repo_id}@{revision}" if revision else repo_id
    try:
        _check_files(where, api.model_info(repo_id, revision=revision, timeout=_TIMEOUT_S, files_metadata=True))
        return Path(api.snapshot_download(repo_id, revision=revision, allow_patterns=list(LARGEST_BYTES)))
    except GatedRepoError:
        raise CheckpointError(
            f"{where}: is gated: accept its terms at {api.endpoint}/{repo_id} and log in with `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise CheckpointError(f"{where}: {repo_id} has no revision {revision!r} (branch, tag or commit)") from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"{where}: no such folder here, and no such model at {api.endpoint}; if it is private, {_login(api)}"
        ) from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, no_connection) as error:
        cached = None if 0 < _status(error) < 500 else _cached(repo_id, revision)
        if cached is None:
            raise CheckpointError(f"{where}: no such folder here, and {_unreachable(api, error)}") from None
        logger.info("%s: the hub cannot be asked; taking the copy in its cache, %s", where, cached)
        return cached


def _check_files(where: str, info: ModelInfo) -> None:
    """Refuses a repository that lacks a file of a run, or has one of a size that no run has."""
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    lacking = [name for name in LARGEST_BYTES if name not in sizes]
    if lacking:
        names = sorted(sizes)
        there = f"{', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}" or "nothing"
        raise CheckpointError(f"{where}: holds no run of dept-vl: {', '.join(lacking)} missing; there is {there}")
    for name, most in LARGEST_BYTES.items():
        size = sizes[name]
        if size is None or size > most:
            raise CheckpointError(f"{where}: {name} has {size or 0:,} bytes, at most {most:,} are downloaded")


def _cached(repo_id: str, revision: str | None) -> Path | None:
    """Returns the folder of a snapshot in the cache that has all files of a run."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repo_id, name, revision=revision) for name in LARGEST_BYTES]
    paths = [Path(path) for path in found if isinstance(path, str)]
    return paths[0].parent if len(paths) == len(LARGEST_BYTES) else None


def _api(token: str | None = None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="dept-vl", library_version=__version__)


def _login(api: HfApi) -> str:
    """Returns what to do where the hub does not let someone in."""
    from huggingface_hub import get_token

    if api.token or get_token():
        return "your token must be allowed to see it (`hf auth whoami` says whose it is)"
    return "log in first: `hf auth login`, or set HF_TOKEN"


def _status(error: Exception) -> int:
    """Returns the hub's answer in HTTP's numbers, 0 where there was none."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _unreachable(api: HfApi, error: Exception) -> str:
    status = _status(error)
    if status in (401, 403):
        return f"{api.endpoint} refuses to show it (HTTP {status}): {_login(api)}"
    if status:
        return f"{api.endpoint} answers with an error (HTTP {status}): {_said(error)}"
    if is_offline():
        return (
            "not in the hub's cache, while HF_HUB_OFFLINE=1 keeps the hub from being asked: unset it, download the "
            "run before, or name a folder"
        )
    return f"{api.endpoint} cannot be reached ({_said(error)}), nor is it in the hub's cache; name a folder"


def _said(error: Exception) -> str:
    """Returns an error's reason in one line: what the hub said, where it said something."""
    text = getattr(error, "server_message", None) or str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__).rstrip(".")


def _check_push(
    folder: Path, repo_id: str, licence: str | None, settings: Mapping[str, Any] | None, token: str | None
) -> TrainConfig:
    """Refuses what cannot be uploaded, as far as that is seen without torch and without asking the hub.

    Returns:
        The settings that are published.
    """
    refuse_several(folder, "RUN")
    config = read_run_config(folder)
    require_adapter(folder)
    if not _is_hub_id(repo_id):
        raise ConfigError(
            f"{repo_id!r} is no name for the hub: expected USER/NAME of letters, digits, '-', '_' and '.', 96 at most"
        )
    if licence is not None:
        check_licence(licence)
    public = public_config(config, settings or {})
    if is_offline():
        raise ConfigError("cannot push while HF_HUB_OFFLINE=1 keeps the hub from being asked: unset it")
    from huggingface_hub import get_token

    if not (token or get_token()):
        raise ConfigError(
            "cannot push without being logged in: `hf auth login`, or set HF_TOKEN to a token that may write"
        )
    return public


def push_run(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    licence: str | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Uploads a run to the hub, so that `find_run` finds it there: adapter, settings and model card in one commit.

    The run's own files stay as they are. No path of this machine is published (`dept_vl.runs.published`).

    Args:
        folder: The run's.
        repo_id: ``user/name``; made if it is not there.
        private: Whether only its owner sees it; None for the account's default, and for what it is already.
        licence: Of the adapter, in the hub's words (``mit``); None for the backbone's, where that is known.
        commit_message: None for one that names the method and the task.
        revision: Branch to push to, made if it is not there; None for the main one.
        token: None for the one that `hf auth login` or HF_TOKEN has set.
        settings: Dotted settings of the frozen models in place of the run's, such as ``model.backbone``: what others
            load them by, where the run has folders of this machine.

    Returns:
        The address of what was pushed.

    Raises:
        CheckpointError: There is no run in the folder, or its adapter is damaged.
        ConfigError: The hub id or licence is none; the run has a frozen model that only this machine has; nobody is
            logged in; the hub cannot be reached, or refuses; or what is there already is not as private as asked for.
    """
    folder = Path(folder)
    config = _check_push(folder, repo_id, licence, settings, token)
    from huggingface_hub import CommitOperationAdd

    from dept_vl.runs.published import published_files

    files = published_files(folder, config, name=f"{repo_id}@{revision}" if revision else repo_id, licence=licence)
    api = _api(token)
    with _refusals_of(api, repo_id):
        _make_repository(api, repo_id, private)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        api.create_commit(
            repo_id,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=commit_message or f"{config.tuner.label} for {config.task}, trained with dept-vl",
            revision=revision,
        )
    return f"{api.endpoint}/{repo_id}" + (f"/tree/{revision}" if revision else "")


def _make_repository(api: HfApi, repo_id: str, private: bool | None) -> None:
    """Makes a repository that is not there; one that is must be as private as asked for."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(repo_id, timeout=_TIMEOUT_S)
    except RepositoryNotFoundError:
        api.create_repo(repo_id, private=private)
        return
    if private is not None and bool(info.private) != private:
        raise ConfigError(
            f"{repo_id}: is on the hub already, and {'private' if info.private else 'public'}; change that at "
            f"{api.endpoint}/{repo_id}/settings, or choose another name"
        )


@contextmanager
def _refusals_of(api: HfApi, repo_id: str) -> Iterator[None]:
    """Says in one line why the hub did not take a run."""
    hints = {401: ": log in anew with `hf auth login`", 403: ": the token must be allowed to write there"}
    try:
        yield
    except (ConfigError, CheckpointError, DataError):
        raise
    except Exception as error:  # httpx, httpx2 and the storage's own client have errors of their own
        cause = error.__cause__ if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception) else error
        status = _status(cause)
        answer = (
            f"answers HTTP {status}: {_said(cause)}{hints.get(status, '')}"
            if status
            else f"is not reached: {_said(cause)}"
        )
        raise ConfigError(f"cannot push to {repo_id}: {api.endpoint} {answer}") from error
