"""Row to source text, one pure function a task. Nothing else may build prompts."""

from __future__ import annotations

from dept_vl.tasks.base import Row


def vqa(row: Row) -> str:
    """``"vqa: {question}"``, the prompt of VL-T5 and its followers (VL-T5 ``src/vqa_clip_data.py``)."""
    return f"vqa: {row['question'].strip()}"


def coco(row: Row) -> str:
    """``"caption:"`` whatever the image (VL-T5 ``src/caption_clip_data.py``)."""
    return "caption:"
