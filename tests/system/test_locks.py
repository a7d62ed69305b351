"""One process at a time on a folder."""

import json
import os
import signal
import socket
from dataclasses import asdict, replace

import pytest

from dept_vl.errors import ConfigError
from dept_vl.system.locks import LockOwner, OwnedLock, folder_lock, hold, refuse_if_used_inside


@pytest.fixture
def lock(tmp_path) -> OwnedLock:
    return folder_lock(tmp_path / "run", "run folder")


def leave_record(lock: OwnedLock, **changes) -> LockOwner:
    """Writes the record of an owner that is not there."""
    owner = replace(LockOwner.this_process(), pid=2**22 + 1, command="dept-vl train", **changes)
    lock.path.with_name(f"{lock.path.name}.json").write_text(json.dumps(asdict(owner)))
    return owner


def test_the_second_is_told_owner_and_age(lock, tmp_path):
    with hold(lock):
        owner = rf"process {os.getpid()} on {socket.gethostname()} \(.*\), for \d seconds"
        with pytest.raises(ConfigError, match=rf"run folder: in use by {owner}; wait for it"):
            folder_lock(tmp_path / "run", "run folder").acquire()
        with pytest.raises(ConfigError, match="run folder: in use by"):
            folder_lock(tmp_path / "run", "run folder").refuse_if_taken()


def test_a_released_lock_is_free_and_leaves_no_record(lock, tmp_path):
    with hold(lock):
        assert lock.owner() == replace(LockOwner.this_process(), since=lock.owner().since)
    assert lock.owner() is None
    folder_lock(tmp_path / "run", "again").refuse_if_taken()


def test_releasing_what_is_not_held_leaves_the_owner_its_record(lock, tmp_path):
    with hold(lock):
        folder_lock(tmp_path / "run", "").release()
        assert lock.owner() is not None


def test_a_killed_owner_is_recognised_and_taken_over_from(lock, tmp_path, caplog):
    child = os.fork()
    if child == 0:
        folder_lock(tmp_path / "run", "run folder").acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert lock.owner().pid == child
    with hold(lock):
        assert f"run folder: its owner is gone, taking over from process {child} on " in caplog.text
        assert lock.owner().pid == os.getpid()


def test_a_process_that_has_got_the_number_of_a_dead_owner_is_not_the_owner(lock):
    leave_record(lock, process_started="another boot 1")
    record = json.loads(lock.path.with_name(f"{lock.path.name}.json").read_text())
    lock.path.with_name(f"{lock.path.name}.json").write_text(json.dumps({**record, "pid": os.getppid()}))
    with hold(lock):
        assert lock.owner().pid == os.getpid()


def test_an_owner_on_another_machine_is_never_thought_gone(lock):
    leave_record(lock, host="elsewhere")
    with pytest.raises(ConfigError, match=r"on elsewhere .* gone for certain, remove .*in-use\.json"):
        lock.acquire()
    assert lock.owner().host == "elsewhere"


def test_an_age_is_never_below_zero_after_a_clock_was_set_back(lock):
    owner = leave_record(lock, host="elsewhere", since=4e9)
    assert str(owner).endswith("for 0 seconds")


def test_a_record_that_was_cut_short_is_no_owner(lock):
    lock.path.with_name(f"{lock.path.name}.json").write_text('{"pid": 1')
    with hold(lock):
        assert lock.owner().pid == os.getpid()


def test_a_folder_has_one_lock_whatever_it_is_called(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with hold(folder_lock(tmp_path / "run", "run")), pytest.raises(ConfigError, match="in use"):
        folder_lock(tmp_path / "link", "link").acquire()


def test_a_folder_with_a_run_at_work_in_it_is_not_replaced(tmp_path):
    with hold(folder_lock(tmp_path / "seed-0", "run")), pytest.raises(ConfigError, match="in use by process"):
        refuse_if_used_inside(tmp_path)
    refuse_if_used_inside(tmp_path)
