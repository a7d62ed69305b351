"""The page: what it shows, and what happens when something on it is used. Of Gradio, which shows what it is given."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.serving.adapters import ServedAdapter
from dept_vl.serving.errors import RequestError
from dept_vl.serving.page import views
from dept_vl.serving.page.asking import Asked, Asker, Question, check_length
from dept_vl.serving.page.split_rows import DrawnRow, SplitRows
from dept_vl.system.bounded_reading import hash_file, read_file

logger = logging.getLogger(__name__)

_REFUSALS = (ConfigError, DataError, CheckpointError, RequestError)
_MANY = 10
"""Rows that are drawn and answered at once."""

_MAX_ASKED = 200
"""Questions that a session's table keeps."""

_BLOCKS: dict[str, Any] = {
    "title": "dept-vl", "analytics_enabled": False, "fill_width": True, "delete_cache": (3600, 86400),
}  # fmt: skip

STYLE = (resources.files("dept_vl") / "assets" / "ui" / "page.css").read_text(encoding="utf-8")


@dataclass
class Visit:
    """What one open page has done.

    Attributes:
        asked: Its questions, by `Question.key`, in order.
        thumbnails: Small copies of their images.
        drawn: The row that was drawn last, as a question.
    """

    asked: dict[Any, Asked] = field(default_factory=dict)
    thumbnails: dict[Any, str] = field(default_factory=dict)
    drawn: Question | None = None

    def add(self, asked: Sequence[Asked], max_pixels: int) -> None:
        """Keeps questions; what other adapters answered to the same ones before stays beside it."""
        for one in asked:
            key = one.question.key
            before = self.asked.pop(key, Asked(one.question))
            self.asked[key] = replace(one, told={**before.told, **one.told})
            if key not in self.thumbnails and (small := views.thumbnail(one.question, max_pixels)):
                self.thumbnails[key] = small
        for key in list(self.asked)[:-_MAX_ASKED]:
            del self.asked[key]
            self.thumbnails.pop(key, None)


class Page:
    """The page of one server."""

    def __init__(self, asker: Asker, rows: Mapping[str, SplitRows], uploads: Path) -> None:
        """Lays it out.

        Args:
            asker: Asks the adapters; those that are loaded now are on the page.
            rows: The splits of each, by its name.
            uploads: The folder of files that were uploaded or drawn, Gradio's own.
        """
        self._asker, self._rows, self._uploads = asker, rows, uploads
        every: list[ServedAdapter] = list(asker.service.table.all.values())
        self._names = [one.run.name for one in every]
        self._columns = list(dict.fromkeys(name for one in every for name in one.columns))
        self._num_images = max(one.num_images for one in every)
        self._limits = asker.service.limits
        with gr.Blocks(**_BLOCKS) as self.blocks:
            self._lay_out(every[0])
            self._connect()

    def _lay_out(self, first: ServedAdapter) -> None:
        config = first.run.config
        self._visit = gr.State()  # a Visit, once something was done
        gr.HTML(views.render("head", backbone=str(config.model.backbone), number=len(self._names)), padding=False)
        with gr.Row(elem_classes="dv-main"):
            with gr.Column(scale=4, min_width=300):
                self._adapter = gr.Radio(self._names, value=self._names[0], label="Adapter", elem_id="adapter")
                self._images = [
                    gr.Image(
                        label="Image" if self._num_images == 1 else f"Image {number + 1}", type="filepath",
                        sources=["upload", "clipboard"], image_mode=None, height=260, buttons=[],
                        elem_id=f"image-{number}", interactive=True,
                    )
                    for number in range(self._num_images)
                ]  # fmt: skip
                self._texts = [
                    gr.Textbox(label=name.capitalize(), lines=1, max_lines=6, elem_id=f"text-{number}")
                    for number, name in enumerate(self._columns)
                ]
                self._ask = gr.Button("Ask", variant="primary", elem_id="ask")
                self._others = gr.CheckboxGroup([], label="Compare with", elem_id="others")
                self._split = gr.Radio([], label="Draw from the split", elem_id="split")
                with gr.Row():
                    self._draw = gr.Button("Draw a row", elem_id="draw", min_width=120)
                    self._draw_many = gr.Button(f"Draw and ask {_MANY}", elem_id="draw-many", min_width=120)
                self._drawn = gr.HTML(elem_id="drawn", padding=False)
            with gr.Column(scale=6, min_width=300):
                self._result = gr.HTML(elem_id="result", padding=False)
        self._table = gr.HTML(elem_id="table", padding=False)

    def _connect(self) -> None:
        """Says what happens at which event; inputs come as the browser sent them, and are looked at here."""
        given = [self._visit, self._adapter, self._others, *self._images, *self._texts]
        form = [*self._images, *self._texts, self._ask, self._others, self._split, self._draw, self._draw_many]
        answered = [self._visit, self._result, self._table]
        raw: dict[str, Any] = {"preprocess": False, "api_visibility": "private"}
        asking = {"fn": self.ask, "inputs": given, "outputs": answered, **raw}
        gr.on([self._ask.click, *(one.submit for one in self._texts)], **asking)
        gr.on(
            [self.blocks.load, self._adapter.change], self.switch, [self._adapter], [*form, self._drawn],
            show_progress="hidden", **raw,
        ).then(self.ask_again, given, answered, **raw)  # fmt: skip
        self._others.input(self.ask_again, given, answered, **raw)
        split = [self._visit, self._adapter, self._split]
        self._draw.click(self.draw, split, [*self._images, *self._texts, self._drawn, *answered], **raw)
        self._draw_many.click(self.draw_many, [*split, self._others], answered, **raw)

    def switch(self, name: Any) -> list[Any]:
        """Shows the fields that an adapter takes, whom it can be compared with, and what can be drawn."""
        adapter, rows = self._asker.adapter(name), self._rows[name]
        has_rows, texts = bool(rows.splits), adapter.columns
        others = self._asker.partners(name)
        return [
            *(gr.update(visible=number < adapter.num_images) for number in range(self._num_images)),
            *(gr.update(visible=column in texts) for column in self._columns),
            gr.update(value="Ask" if texts else "Caption"),
            gr.update(choices=others, visible=bool(others), value=[]),
            gr.update(choices=list(rows.splits), value=next(iter(rows.splits), None), visible=has_rows),
            gr.update(interactive=has_rows),
            gr.update(interactive=has_rows),
            "" if has_rows else views.hint(f"No rows to draw for {name}: {rows.why_none}"),
        ]

    def ask(self, visit: Visit | None, name: Any, others: Any, *fields: Any) -> list[Any]:
        """Answers what is on the page."""
        own = visit or Visit()
        return self._shown(own, lambda: self._answered(own, name, others, fields))

    def ask_again(self, visit: Visit | None, name: Any, others: Any, *fields: Any) -> list[Any]:
        """Answers what is on the page where that is all there, as another adapter is chosen."""
        own = visit or Visit()

        def answered() -> str:
            question = self._question(self._asker.adapter(name), fields, own)
            return views.hint(question) if isinstance(question, str) else self._answered(own, name, others, fields)

        return self._shown(own, answered)

    def _answered(self, visit: Visit, name: Any, others: Any, fields: Sequence[Any]) -> str:
        question = self._question(self._asker.adapter(name), fields, visit)
        if isinstance(question, str):
            return views.error(question)
        found = self._asker.ask([name, *self._compared(name, others)], [question])
        visit.add(found, self._limits.max_pixels)
        return views.answers(found[0])

    def _compared(self, name: Any, others: Any) -> list[str]:
        """Returns the adapters that are asked beside one; those that take something else are left out."""
        return [one for one in self._asker.partners(name) if isinstance(others, list) and one in others]

    def _question(self, adapter: ServedAdapter, fields: Sequence[Any], visit: Visit) -> Question | str:
        """Returns what is on the page as a question; or what is missing there, for people."""
        files = [one["path"] for one in fields[: adapter.num_images] if isinstance(one, dict)]
        texts = dict(zip(self._columns, fields[self._num_images :], strict=True))
        columns = {name: self._read(adapter, name, texts[name]) for name in adapter.columns}
        if len(files) < adapter.num_images:
            return "Choose an image." if adapter.num_images == 1 else f"Choose {adapter.num_images} images."
        optional = [name for name, kind in adapter.parts.task.columns.items() if kind == "text or empty"]
        missing = [name for name, text in columns.items() if name not in optional and not str(text or "").strip()]
        if missing:
            return f"Type a {missing[0]}."
        question = Question(columns, ())
        check_length(question, self._limits.max_text)
        images = tuple(read_file(Path(path), self._limits.max_body_bytes) for path in files)
        question = Question(columns, images)
        return visit.drawn if visit.drawn is not None and visit.drawn.key == question.key else question

    @staticmethod
    def _read(adapter: ServedAdapter, name: str, text: Any) -> Any:
        """Returns a column as the template reads it: of several texts, one a line."""
        if adapter.parts.task.columns.get(name) == "texts" and isinstance(text, str):
            return text.splitlines()
        return text

    def draw(self, visit: Visit | None, name: Any, split: Any) -> list[Any]:
        """Puts a row of a split on the page, to be asked about."""
        own = visit or Visit()
        try:
            (row,) = self._draw_rows(name, split, 1)
            own.drawn = self._as_question(row)
            fields = self._fields(row)
            return [*fields, views.drawn(row), own, views.hint("Drawn; now ask."), gr.skip()]
        except Exception as error:
            fields = [gr.skip()] * (self._num_images + len(self._columns))
            return [*fields, gr.skip(), own, _said(error), gr.skip()]

    def draw_many(self, visit: Visit | None, name: Any, split: Any, others: Any) -> list[Any]:
        """Draws rows and answers them at once."""
        own = visit or Visit()

        def answered() -> str:
            questions = [self._as_question(row) for row in self._draw_rows(name, split, _MANY)]
            found = self._asker.ask([name, *self._compared(name, others)], questions)
            own.add(found, self._limits.max_pixels)
            return views.summary(found, f"{self._asker.adapter(name).parts.task.name} {split}")

        return self._shown(own, answered)

    def _draw_rows(self, name: Any, split: Any, number: int) -> list[DrawnRow]:
        return self._rows[self._asker.adapter(name).run.name].draw(split, number)

    def _fields(self, row: DrawnRow) -> list[Any]:
        """Returns what a row puts into the page's images and texts."""
        paths: list[Any] = [str(self._copied(path)) for path in row.images]
        texts = {name: "\n".join(one) if isinstance(one, list) else str(one) for name, one in row.columns.items()}
        return [*paths, *[None] * (self._num_images - len(paths)), *(texts.get(one, "") for one in self._columns)]

    def _as_question(self, row: DrawnRow) -> Question:
        images = tuple(read_file(path, self._limits.max_body_bytes) for path in row.images)
        return Question(row.columns, images, row.references, row.place)

    def _copied(self, path: Path) -> Path:
        """Returns a copy of a drawn image where Gradio serves files from."""
        folder = self._uploads / hash_file(path)
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(path, folder / f"drawn{path.suffix.lower()}"))

    def _shown(self, visit: Visit, answered: Callable[[], str]) -> list[Any]:
        """Returns what the page shows of an answer, or of what is wrong with what was asked."""
        try:
            result = answered()
        except Exception as error:
            result = _said(error)
        return [visit, result, views.table(list(visit.asked.values()), visit.thumbnails)]


def _said(error: Exception) -> str:
    """Returns what people are told of an error; what nobody can have caused goes to the log."""
    if isinstance(error, _REFUSALS):
        return views.error(str(error))
    if isinstance(error, OSError):
        return views.error(error.strerror or str(error))
    logger.error("the page failed", exc_info=error)
    return views.error("The server failed at this; its log says how.")
