"""Trains the small CLIP, the T5 and the projection between them that ship with the package, from drawn scenes alone.

    python -m data_prep.demo_models.train --out DIR

writes ``DIR/clip`` (a folder of open_clip) and ``DIR/t5`` (a folder of transformers), weights in float16, and
``DIR/projection`` (an adapter), and logs their SHA-256. Seeds are fixed and one thread computes, so that the same
processor kind and the same versions give the same bytes; the model card ``dept_vl/assets/demo/README.md`` has those of
the shipped models, the time, and the figures. With ``--only`` CLIP and T5 can be trained side by side, one core each,
and the projection after them.

The scenes are those of the split ``"pretrain"``, disjoint from the demo's train, validation and test scenes. The CLIP
sees images and captions; the T5 sees text alone, never an image or an image feature; the projection is trained on
captions, with both frozen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import torch

from data_prep.demo_models.clip import ClipRecipe, save_clip, train_clip
from data_prep.demo_models.probe import probe_accuracy
from data_prep.demo_models.projection import ProjectionRecipe, train_projection
from data_prep.demo_models.t5 import STAGES, T5Recipe, measure_accuracy, save_t5, train_t5
from data_prep.demo_models.tokenizer import build_tokenizer

logger = logging.getLogger(__name__)

PARTS = ("clip", "t5", "projection")


def train_backbone(
    out: Path,
    clip: ClipRecipe,
    t5: tuple[T5Recipe, ...],
    projection: ProjectionRecipe,
    parts: tuple[str, ...] = PARTS,
    num_measured: int = 1000,
) -> dict[str, object]:
    """Trains and saves the demo CLIP and T5, and the projection between them.

    Args:
        out: Folder that receives ``clip/``, ``t5/`` and ``projection/``; the last needs the two others there.
        clip: How the CLIP is trained.
        t5: The stages of the T5's training.
        projection: How the projection is trained.
        parts: Which of the three to train; two processes can share the work.
        num_measured: Scenes and questions that the figures are measured on.

    Returns:
        The figures of the parts trained: linear-probe accuracies of the CLIP's patch tokens, the share of questions
        the T5 answers from words, per kind of description, the CIDEr of captions, and the SHA-256 of every weights
        file.
    """
    # Sums over several threads are rounded differently from one machine to the next.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(out, clip, t5, projection, parts, num_measured)
    finally:
        torch.set_num_threads(num_threads)


def _train(
    out: Path,
    clip: ClipRecipe,
    t5: tuple[T5Recipe, ...],
    projection: ProjectionRecipe,
    parts: tuple[str, ...],
    num_measured: int,
) -> dict[str, object]:
    tokenizer = build_tokenizer()
    figures: dict[str, object] = {}
    if "clip" in parts:
        model = train_clip(clip, tokenizer)
        save_clip(model, len(tokenizer), out / "clip")
        figures["clip_linear_probe"] = probe_accuracy(model, num_train=2 * num_measured, num_test=num_measured)
    if "t5" in parts:
        reader = train_t5(t5[0], tokenizer)
        for stage in t5[1:]:
            reader = train_t5(stage, tokenizer, reader)
        save_t5(reader, tokenizer, out / "t5")
        figures["t5_text_accuracy"] = measure_accuracy(reader, tokenizer, "test", num_measured)
    if "projection" in parts:
        figures["captions_cider"] = train_projection(projection, out, out / "projection")
    figures["sha256"] = {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in parts
        for path in sorted((out / part).glob("*.safetensors"))
    }
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives clip/, t5/ and projection/")
    parser.add_argument("--steps", type=int, help="train for this many steps a stage only, to try the recipe out")
    parser.add_argument("--only", choices=PARTS, help="train one of the three")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    clip, t5, projection = ClipRecipe(), STAGES, ProjectionRecipe()
    if options.steps is not None:
        clip = replace(clip, num_steps=options.steps)
        t5 = tuple(replace(stage, num_steps=options.steps) for stage in t5)
        projection = replace(projection, num_steps=options.steps)
    parts = PARTS if options.only is None else (options.only,)
    figures = train_backbone(options.out, clip, t5, projection, parts)
    logger.info("figures: %s", json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
