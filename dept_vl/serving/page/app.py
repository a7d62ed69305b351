"""The page as an application, with nothing of Gradio's that asks another host or keeps what was uploaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.types import ASGIApp

from dept_vl.serving.page.split_rows import SplitRows
from dept_vl.serving.service import Service


def make_page(service: Service, rows: Mapping[str, SplitRows], uploads: Path) -> ASGIApp:
    """Returns the page of a service.

    Args:
        service: What answers.
        rows: The splits of each adapter, by its name.
        uploads: An empty folder for what is uploaded; its owner removes it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read as Gradio is imported
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    import gradio as gr

    from dept_vl.serving.page.asking import Asker
    from dept_vl.serving.page.guard import Guard
    from dept_vl.serving.page.layout import STYLE, Page

    blocks = Page(Asker(service), rows, uploads).blocks
    blocks.queue(default_concurrency_limit=8, max_size=service.limits.max_queue)
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    app = gr.mount_gradio_app(
        Starlette(), blocks, path="/", theme=theme, css=STYLE, footer_links=[], run_history=False, ssr_mode=False,
        mcp_server=False, enable_monitoring=False, pwa=False, max_file_size=service.limits.max_body_bytes,
    )  # fmt: skip
    blocks.has_launched = True  # else Gradio takes any path of this machine for an uploaded file
    return Guard(app, service.limits.max_body_bytes)
