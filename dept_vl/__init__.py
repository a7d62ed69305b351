"""Decomposed Prompt Tuning (DePT) of a frozen CLIP-T5: VQA v2, COCO captions and text tasks."""

__version__ = "0.1.0"
