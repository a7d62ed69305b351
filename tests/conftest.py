"""Shared fixtures: where the real data lie, and a small prepared task with everything a run needs."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads only get in each other's way
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import huggingface_hub
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from dept_vl.tasks import get_task
from tests.data_prep.photographs import Photographs, draw_photographs, real_photographs
from tests.fresh_process import FreshProcess, start_server
from tests.hub_server import WRITER, HubServer

pytest_plugins = ["tests.allowed_skips"]

EXCERPT = Path(__file__).resolve().parent / "data" / "excerpt"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

WORDS = (
    "what", "color", "is", "the", "small", "big", "red", "blue", "cube", "ball", "left", "of", "how", "many", "?",
    "green", "vqa", ":", "yes", "no", "one", "two", "0", "1", "2",
)  # fmt: skip


def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts the server of fresh processes beside the first tests, if any test needs it.

    What was imported until here is not garbage: the collector need not look through it every few seconds again.
    """
    gc.freeze()
    if any("fresh_process" in getattr(item, "fixturenames", ()) for item in session.items):
        start_server()


@pytest.fixture(scope="session", autouse=True)
def _written_is_enough() -> Iterator[None]:
    """Waits for no disk: no test cuts the power, and a run of a few steps would wait for a fifth of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def fresh_process(tmp_path_factory: pytest.TempPathFactory) -> FreshProcess:
    """Runs functions in processes that have done nothing before."""
    return FreshProcess(tmp_path_factory.mktemp("fresh"))


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub of its own, with a cache of its own, where one is logged in as somebody who may write."""
    server, folder = HubServer(), tmp_path_factory.mktemp("hub")
    settings = {
        "ENDPOINT": server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_TOKEN_PATH": str(folder / "token"),
        "HF_HUB_DISABLE_XET": True,  # a storage protocol beside the hub's own, which the server does not speak
    }
    for name, value in settings.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    yield server
    server.close()


@pytest.fixture(scope="session")
def excerpt() -> Path:
    """Real data that every clone has: a few hundred rows of what `shared_data` has in full."""
    return EXCERPT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of complete real data beside the checkout; skips the test when it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the complete real data in ../shared/data, which is not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session", params=["drawn", "real"])
def photographs(request: pytest.FixtureRequest, excerpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """Photographs with questions and captions; the real ones lie beside the checkout."""
    if request.param == "drawn":
        return draw_photographs(tmp_path_factory.mktemp("photographs"), excerpt)
    return real_photographs(request.getfixturevalue("shared_data"))


def _save_tiny_t5(folder: Path, *, gated: bool = False, seed: int = 0, **shape: int) -> Path:
    """Writes a random T5 with a word-level tokenizer: 2 + 2 layers, vocabulary of 32; small widths, or `shape`'s."""
    config = T5Config(
        vocab_size=32,
        **{"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2} | shape,
        num_layers=2,
        num_decoder_layers=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        dropout_rate=0.1,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=not gated,
        decoder_start_token_id=0,
    )
    torch.manual_seed(seed)
    t5 = T5ForConditionalGeneration(config)
    # The published initialisation gives a nearly flat bias; make positions matter, so that a wrong bias shows.
    for stack in (t5.encoder, t5.decoder):
        torch.nn.init.normal_(stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight, std=1.5)
    if gated:
        t5.lm_head.weight = torch.nn.Parameter(torch.randn_like(t5.lm_head.weight))
    t5.save_pretrained(folder)
    _tiny_tokenizer().save_pretrained(str(folder))
    return folder


def _tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a word-level tokenizer that appends ``</s>`` as T5's does."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


@pytest.fixture(scope="session")
def save_tiny_t5() -> Callable[..., Path]:
    """The function that writes a tiny T5 to a folder."""
    return _save_tiny_t5


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 v1.0."""
    return _save_tiny_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def t5_v1_1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 v1.1, the shape of Flan-T5 too."""
    return _save_tiny_t5(tmp_path_factory.mktemp("t5_v1_1"), gated=True)


@pytest.fixture(scope="session")
def folders(t5_folder, t5_v1_1_folder, tmp_path_factory):
    """A tiny backbone of every family."""
    from tests.models.language.causal_folders import SAVE_TINY  # it takes this file's words

    saved = {family: save(tmp_path_factory.mktemp(family)) for family, save in SAVE_TINY.items()}
    return {"t5": t5_folder, "t5-v1.1": t5_v1_1_folder, **saved}


def tiny_vqa_rows(num_rows: int, seed: int) -> list[dict[str, object]]:
    """Returns rows of the VQA manifest on ten images, their questions of 3 to 9 words."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for index in range(num_rows):
        image_id = int(rng.integers(1, 11))
        words = rng.choice(WORDS[:15], size=int(rng.integers(2, 9)))
        answers = [str(a) for a in rng.choice(["yes", "no", "red", "two"], size=10, p=[0.5, 0.3, 0.1, 0.1])]
        best, second = sorted(set(answers), key=answers.count)[-1], sorted(set(answers), key=answers.count)[0]
        rows.append(
            {
                "example_id": 1000 * seed + index,
                "image_id": image_id,
                "image": f"val2014/COCO_val2014_{image_id:012d}.jpg",
                "question": " ".join(words) + " ?",
                "answer_type": ["yes/no", "number", "other"][index % 3],
                "question_type": "what is",
                "targets": [best, second] if best != second else [best],
                "target_weights": [1.0, 0.3] if best != second else [1.0],
                "references": answers,
            }
        )
    return rows


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared VQA task, 60 / 20 / 20 rows on ten images, with a store of random features (4 x 6)."""
    from data_prep.feature_writer import FeatureWriter
    from dept_vl.data.manifest import SplitInfo, manifest_schema, write_split
    from dept_vl.models.vision.open_clip.config import OpenClipConfig

    data_dir = tmp_path_factory.mktemp("data")
    (data_dir / "vqa").mkdir()
    schema = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))
    for seed, (split, size) in enumerate({"train": 60, "val": 20, "test": 20}.items(), start=1):
        write_split(data_dir / "vqa", SplitInfo("vqa", split, str(data_dir)), schema, tiny_vqa_rows(size, seed))
    fingerprint = {
        **OpenClipConfig().known_fingerprint(),
        "weights_sha256": "0" * 64,
        "num_visual_tokens": 4,
        "feature_dim": 6,
    }
    generator = torch.Generator().manual_seed(0)
    with FeatureWriter(data_dir / "features" / "random", fingerprint, range(1, 11)) as writer:
        for plan in writer.pending(0, 1):
            features = torch.randn(len(plan.image_ids), 4, 6, generator=generator).half()
            writer.write(plan, features, [1] * len(plan.image_ids), [])
        writer.finish()
    return data_dir


@pytest.fixture(scope="session")
def mix_data(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, label_data: Path) -> Path:
    """VQA and captions of the same ten images; CoLA, MNLI and SQuAD with made-up rows: 60 + 30, and 24 + 40 + 16."""
    import shutil

    from dept_vl.data.manifest import SplitInfo, manifest_schema, task_folder, write_split

    data_dir = tmp_path_factory.mktemp("mix") / "data"
    shutil.copytree(tiny_data, data_dir)
    shutil.copytree(label_data, data_dir, dirs_exist_ok=True)
    texts = {"mnli": ("premise", "hypothesis"), "squad": ("question", "context"), "coco": ()}
    sizes = {"mnli": (40, 10, 10), "squad": (16, 6, 6), "coco": (30, 10, 10)}
    for name, columns in texts.items():
        task = get_task(name) if name == "coco" else get_task(name).under("fixed")
        folder = task_folder(data_dir, task)
        folder.mkdir()
        schema = manifest_schema(images=name == "coco", text_columns=columns)
        for seed, (split, size) in enumerate(zip(("train", "val", "test"), sizes[name], strict=True)):
            rng = np.random.default_rng(seed + 10)
            rows = []
            for row in range(size):
                words = [" ".join(rng.choice(WORDS[:15], size=int(rng.integers(2, 6)))) for _ in columns]
                gold = {"mnli": "012"[row % 3], "squad": ["red", "big blue"][row % 2], "coco": f"a {WORDS[row % 8]}"}[
                    name
                ]
                image = {"image_id": row % 10 + 1, "image": f"val2014/COCO_val2014_{row % 10 + 1:012d}.jpg"}
                targets = [] if name == "coco" and split != "train" else [gold]
                answers = {"targets": targets, "target_weights": [1.0] * len(targets), "references": [gold]}
                own = dict(zip(columns, words, strict=True)) if columns else image
                rows.append({"example_id": row, **own, **answers})
            write_split(folder, SplitInfo(name, split, str(data_dir), task.protocol), schema, rows)
    return data_dir


@pytest.fixture(scope="session")
def label_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CoLA with made-up rows, prepared: 24 / 8 / 8 texts, labelled by whether they hold "red"."""
    from dept_vl.data.manifest import SplitInfo, manifest_schema, task_folder, write_split

    data_dir = tmp_path_factory.mktemp("labels")
    folder = task_folder(data_dir, get_task("cola").under("fixed"))
    folder.mkdir()
    schema = manifest_schema(images=False, text_columns=("sentence",))
    for seed, (split, size) in enumerate({"train": 24, "val": 8, "test": 8}.items()):
        rng = np.random.default_rng(seed)
        rows = []
        for row in range(size):
            words = [str(word) for word in rng.choice(WORDS, size=4)]
            golds = [str(int("red" in words))]
            texts = {"sentence": " ".join(words), "targets": golds, "references": golds}
            rows.append({"example_id": row, "target_weights": [1.0], **texts})
        write_split(folder, SplitInfo("cola", split, protocol="fixed"), schema, rows)
    return data_dir
