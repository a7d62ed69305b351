"""The recipe of the demo backbone: its text data, and a few steps of it from end to end."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerFast

import dept_vl
from data_prep.demo_models.clip import ClipRecipe, detailed_caption, tokenize
from data_prep.demo_models.descriptions import describe_in_bags, describe_in_sentences
from data_prep.demo_models.projection import ProjectionRecipe
from data_prep.demo_models.t5 import Noise, T5Recipe, encode, model_config
from data_prep.demo_models.t5_batches import TextBatch, TextTasks, corrupt_spans
from data_prep.demo_models.tokenizer import EOS_ID, NUM_SENTINELS, PAD_ID, build_tokenizer
from data_prep.demo_models.train import train_backbone
from data_prep.demo_world.questions import draw_captions, draw_questions
from data_prep.demo_world.scene import POSITIONS, SHAPES, draw_scene


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    out = tmp_path_factory.mktemp("backbone")
    return out, _train_shortly(out)


def _train_shortly(out: Path) -> dict[str, object]:
    clip = ClipRecipe(num_steps=2, num_groups=2, group_size=2, warmup_steps=1)
    t5 = T5Recipe(num_steps=2, batch_size=4, warmup_steps=1)
    return train_backbone(out, clip, (t5, t5), ProjectionRecipe(num_images=40, num_steps=2), num_measured=20)


def test_scene_words_are_single_pieces(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    for _ in range(50):
        scene = draw_scene(rng, "test")
        for text in [q.text for q in draw_questions(scene, 4, rng)] + draw_captions(scene, rng):
            words = text.lower().replace(",", " ,").replace("?", " ?").replace(".", " .").split()
            assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == len(words)


@pytest.mark.parametrize("text", ["a café's 日本 umbrella", "3 zebras & 2 giraffes!", "naïve 🙂"])
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids[-1] == EOS_ID
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.lower()


def test_tokenizer_reserves_the_ids_of_t5(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (PAD_ID, EOS_ID, 2)
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == len(tokenizer) - NUM_SENTINELS


def test_detailed_captions_fit_the_text_tower(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(1)
    captions = [detailed_caption(draw_scene(rng, "pretrain"), rng) for _ in range(300)]
    ids = tokenize(tokenizer, captions)
    assert (ids == EOS_ID).sum(dim=1).tolist() == [1] * len(captions)  # nothing was cut off


@pytest.mark.parametrize("kind", ["objects", "cells"])
def test_bags_name_every_object_in_full(kind: str) -> None:
    rng = random.Random(2)
    for _ in range(100):
        scene = draw_scene(rng, "pretrain")
        bags = [set(bag) for bag in describe_in_bags(scene, kind, rng)]
        for item in scene.objects:
            full = {*item.position.split(), item.size, item.color, item.shape}
            assert any(full <= bag for bag in bags)
        assert any(scene.background in bag for bag in bags)
        if kind == "cells":
            places = [" ".join(w for p in POSITIONS for w in [p] if set(p.split()) <= bag) for bag in bags]
            assert len([p for p in places if p]) == 9


def test_sentences_name_every_object() -> None:
    rng = random.Random(3)
    for _ in range(100):
        scene = draw_scene(rng, "pretrain")
        text = describe_in_sentences(scene, rng)
        assert sum(text.count(shape) for shape in SHAPES) == len(scene.objects)
        assert all(f"{o.size} {o.color} {o.shape}" in text for o in scene.objects)


def test_corrupted_spans_put_together_give_the_text_back() -> None:
    rng = random.Random(4)
    for length in (1, 2, 7, 40):
        ids = list(range(100, 100 + length))
        source, target = corrupt_spans(ids, first_sentinel=1000, rng=rng)
        assert source[-1] == target[-1] == EOS_ID
        spans: dict[int, list[int]] = {}
        for token in target[:-1]:
            if token >= 1000:
                spans[token] = []
            else:
                spans[max(spans)].append(token)
        assert [t for token in source[:-1] for t in (spans[token] if token >= 1000 else [token])] == ids


def test_text_batches_follow_the_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    one, two = (TextTasks(tokenizer, "pretrain", 5).draw("vqa", "cells", 8) for _ in range(2))
    assert one.targets == two.targets
    assert one.bag_ids is not None
    assert two.bag_ids is not None
    assert torch.equal(one.input_ids, two.input_ids)
    assert torch.equal(one.bag_ids, two.bag_ids)


def test_bags_have_no_order(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(model_config(len(tokenizer)), attn_implementation="eager").eval()
    batch = TextTasks(tokenizer, "pretrain", 6).draw("vqa", "cells", 3)
    assert batch.bag_ids is not None
    turned = TextBatch(batch.input_ids, batch.bag_ids.flip(1), None, batch.labels, batch.targets)
    with torch.no_grad():
        hidden, mask = encode(model, batch, None)
        other, _ = encode(model, turned, None)
        longer, _ = encode(model, batch, Noise(word_std=0.0, filler_tokens=2))
    num_text = batch.input_ids.shape[1]
    torch.testing.assert_close(hidden[:, :num_text], other[:, :num_text], atol=1e-5, rtol=1e-5)
    assert mask.shape == hidden.shape[:2]
    assert longer.shape[1] == hidden.shape[1] + 2


def test_the_clip_folder_loads_in_open_clip(trained: tuple[Path, dict[str, object]]) -> None:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{trained[0] / 'clip'}")
    image = preprocess(Image.fromarray(np.zeros((96, 96, 3), dtype=np.uint8)))
    assert image.shape == (3, 96, 96)
    assert model.encode_image(image[None]).isfinite().all()


def test_the_t5_folder_loads_in_transformers(trained: tuple[Path, dict[str, object]]) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(trained[0] / "t5")
    tokenizer = AutoTokenizer.from_pretrained(trained[0] / "t5")
    ids = tokenizer("vqa: What color is the star?", return_tensors="pt")
    assert ids["input_ids"][0, -1] == EOS_ID
    assert model.generate(**ids, max_new_tokens=3).shape[0] == 1


def test_the_figures_are_shares(trained: tuple[Path, dict[str, object]]) -> None:
    figures = trained[1]
    assert set(figures) == {"clip_linear_probe", "t5_text_accuracy", "captions_cider", "sha256"}
    for name in ("clip_linear_probe", "t5_text_accuracy"):
        group = figures[name]
        assert isinstance(group, dict)
        assert all(0.0 <= share <= 1.0 for share in group.values())


def test_the_recipe_repeats_itself_to_the_byte(trained: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # the recipe computes with one thread whatever the caller's number is
    try:
        torch.rand(7)  # nor does it depend on what was drawn before
        again = _train_shortly(tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert again["sha256"] == trained[1]["sha256"]


def test_the_model_card_names_the_shipped_weights() -> None:
    folder = Path(dept_vl.__file__).parent / "assets" / "demo"
    card = (folder / "README.md").read_text(encoding="utf-8")
    files = list(folder.rglob("*.safetensors"))
    assert len(files) == 3
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() in card
