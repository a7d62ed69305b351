"""Signals: at once, or when a checkpoint is written."""

import os
import signal
import threading

import pytest

from dept_vl.system import signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_at_once_where_nothing_is_to_be_saved(number, code):
    with pytest.raises(signals.StoppedError) as stopped, signals.listen():
        os.kill(os.getpid(), number)
    assert stopped.value.exit_code == code
    assert not stopped.value.is_resumable


def test_a_deferred_signal_is_told_when_asked_for():
    with signals.listen(), signals.deferring():
        assert signals.requested() is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() == signal.SIGTERM


def test_a_second_ctrl_c_does_not_wait():
    with signals.listen(), signals.deferring():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(signals.StoppedError):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_launcher_that_repeats_ctrl_c_is_not_impatient(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with signals.listen(), signals.deferring():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.requested() == signal.SIGINT


def test_the_caller_s_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals.listen():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert not signals.is_listening()


def test_a_forked_worker_leaves_signals_to_its_parent():
    with signals.listen():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_outside_the_main_thread_nothing_is_installed():
    seen = []

    def work():
        with signals.listen():
            seen.append(signals.is_listening())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
