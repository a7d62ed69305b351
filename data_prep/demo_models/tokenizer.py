"""The demo T5's tokenizer: each word of the drawn scenes is one piece, common English words too, bytes for the rest."""

from __future__ import annotations

import gzip
import random
import re
from importlib import resources
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from data_prep.demo_world.questions import draw_captions, draw_questions
from data_prep.demo_world.scene import draw_scene

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
NUM_SENTINELS = 32
_SPECIALS = ("<pad>", "</s>", "<unk>")
_NUM_COMMON_WORDS = 1500
_NUM_ENDINGS = 160
_PUNCTUATION = "?.,:;!'\"()-/&%$#+*"
_SCENES_READ = 400


def _scene_words() -> list[str]:
    """Every word that questions, answers and captions about scenes use, sorted."""
    rng = random.Random(0)
    words: set[str] = {"vqa", "caption", "scene", "empty", "nothing", "background"}
    for _ in range(_SCENES_READ):
        scene = draw_scene(rng, "pretrain")
        texts = [t for q in draw_questions(scene, 8, rng) for t in (q.text, q.answer)]
        for text in texts + draw_captions(scene, rng):
            words.update(re.findall(r"[a-z]+", text.lower()))
    return sorted(words)


def _common_pieces() -> tuple[list[str], list[str]]:
    """Common English words and word endings, most frequent first, from the merges of CLIP's tokenizer (open_clip)."""
    packed = resources.files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode("utf-8").split("\n")[1:12_000]
    merged = [merge.replace(" ", "") for merge in merges]
    whole = [m.removesuffix("</w>") for m in merged if m.endswith("</w>")]
    words = [w for w in whole if re.fullmatch(r"[a-z]{2,12}", w)]
    endings = [m.removesuffix("</w>") for m in merged if re.fullmatch(r"[a-z]{2,3}(</w>)?", m)]
    return words[:_NUM_COMMON_WORDS], list(dict.fromkeys(endings))[:_NUM_ENDINGS]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Builds the tokenizer: Unigram with byte fallback, lower case, ``</s>`` at the end, T5's special tokens.

    Deterministic: it depends on the scenes' words and on open_clip's word list alone.
    """
    scene_words = _scene_words()
    words, endings = _common_pieces()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    scored: dict[str, float] = dict.fromkeys(_SPECIALS, 0.0)
    scored.update({f"<0x{byte:02X}>": -30.0 for byte in range(256)})
    scored.update({f"▁{word}": -4.0 for word in scene_words})
    scored.update(dict.fromkeys(_PUNCTUATION, -4.5))
    for rank, word in enumerate(words):
        scored.setdefault(f"▁{word}", -6.0 - 4.0 * rank / len(words))
    for rank, ending in enumerate(endings):
        scored.setdefault(ending, -9.0 - 2.0 * rank / len(endings))
    scored.update({f"▁{digit}": -4.0 for digit in "0123456789"})
    for letter in letters:
        scored.setdefault(f"▁{letter}", -11.0)
        scored.setdefault(letter, -12.0)
    scored.setdefault("▁", -12.0)
    tokenizer = Tokenizer(Unigram(list(scored.items()), unk_id=UNK_ID, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", EOS_ID)]
    )
    sentinels = [f"<extra_id_{index}>" for index in range(NUM_SENTINELS)]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=sentinels,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json``, which `AutoTokenizer` reads."""
    tokenizer.save_pretrained(str(folder))
