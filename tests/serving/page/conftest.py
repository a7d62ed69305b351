"""A page of several adapters on one tiny backbone, with drawn images and rows to draw."""

import os
import threading
import time
from contextlib import contextmanager

import pytest

from dept_vl.serving.limits import ServeLimits
from dept_vl.serving.page.split_rows import SplitRows
from dept_vl.serving.startup import RunReader, read_runs
from tests.reports.made_runs import noisy_images, prepared_vqa
from tests.serving.conftest import no_check


@pytest.fixture(scope="package")
def rows_dir(tmp_path_factory):
    """Prepared VQA, nine rows of the test split on three images."""
    folder = tmp_path_factory.mktemp("page") / "data"
    return prepared_vqa(folder, 9, noisy_images(folder / "images", 3))


@contextmanager
def a_service(words, *, wrap=None, **limits):
    """Loads runs for the block and yields them as a server without HTTP."""
    from dept_vl.serving.service import Service

    runs = read_runs(list(map(str, words)), {}, no_check)
    service = Service(RunReader({}, no_check), runs, ServeLimits(**limits), wrap=wrap)
    try:
        yield service
    finally:
        service.queue.drain()
        assert service.queue.join(20)


def rows_of(service, data_dir):
    """Returns the splits of every adapter: one folder, or why there is none, for all."""
    return {name: SplitRows(one.run, data_dir) for name, one in service.table.all.items()}


@contextmanager
def a_page(words, data_dir, uploads, *, wrap=None, **limits):
    """Shows a page in a thread for the block; yields the service and the port."""
    from dept_vl.serving.page.app import make_page
    from dept_vl.serving.server import DrainingServer, bind

    before = {name: os.environ.get(name) for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR")}
    with a_service(words, wrap=wrap, **limits) as service:
        listening = bind("127.0.0.1", 0)
        page = make_page(service, rows_of(service, data_dir), uploads)
        server = DrainingServer(service.queue, page, last_seconds=1)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield service, listening.getsockname()[1]
        finally:
            server.drain()
            thread.join(20)
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            assert not thread.is_alive()
