"""A pytest plugin: with ``-o allowed_skips=FILE`` a session fails in which a test is skipped for a reason not in FILE.

Each line of the file is the start of a reason; empty lines and those that start with ``#`` say nothing. CI gives it, so
that a test that stops running there is noticed: ``PYTEST_ADDOPTS="-rs -o allowed_skips=.ci/allowed_skips.txt"``.
"""

from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter  # public only since pytest 8.4


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("allowed_skips", "file of reasons; a test that is skipped for another fails the session", default="")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getini("allowed_skips")
    if path:
        config.pluginmanager.register(_AllowedSkips(config.rootpath / path))


class _AllowedSkips:
    def __init__(self, path: Path) -> None:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        self._path = path
        self._allowed = tuple(line for line in lines if line and not line.startswith("#"))
        self._others: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._judge(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._judge(report)

    def _judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(self._allowed):
            self._others.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._others and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        if self._others:
            terminalreporter.section(f"skipped for a reason that {self._path} does not have", red=True)
            for line in self._others:
                terminalreporter.line(line)
