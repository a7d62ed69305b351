"""What text becomes for T5 and for decoder-only models."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dept_vl.data.text_codec import CausalTextCodec, TextCodec
from dept_vl.errors import ConfigError, DataError

TEXTS = ["Is the sky blue? Yes, said the old man.", "No.", "what is   this", "naïve café über 東京", ""]


@pytest.fixture(scope="module")
def gpt2_like():
    """A byte-level BPE tokenizer as GPT-2's: no beginning of sequence, no padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*TEXTS, "Label : Label : yes no"] * 5, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


@pytest.fixture(scope="module")
def real_t5(excerpt):
    """T5's tokenizer, with those of its pieces that the texts here can be cut into."""
    return AutoTokenizer.from_pretrained(excerpt / "t5_tokenizer")


@pytest.mark.parametrize("source", ["excerpt", "shared_data"])
def test_the_real_tokenizer_cuts_text_into_the_recorded_pieces(request, excerpt, source):
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(source) / "t5_tokenizer")
    recorded = json.loads((excerpt / "t5_tokenizer" / "pieces.json").read_text(encoding="utf-8"))
    assert {text: tokenizer(text).tokens() for text in recorded} == recorded
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [0, 1, 2]


def with_bos(tokenizer, *, and_eos=False):
    copied = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        bos_token="<|endoftext|>", eos_token="<|endoftext|>",
    )  # fmt: skip
    single = "<|endoftext|> $A <|endoftext|>" if and_eos else "<|endoftext|> $A"
    copied.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<|endoftext|>", 0)]
    )
    return copied


@pytest.mark.parametrize("length", [1, 2, 4, 7, 100])
def test_t5_text_is_cut_as_its_tokenizer_cuts_it(real_t5, length):
    if length == 1:
        with pytest.raises(ConfigError, match=r"data\.max_source_length: 1 has no room"):
            TextCodec(real_t5).source_ids(TEXTS, length)
        return
    expected = real_t5(TEXTS, truncation=True, max_length=length)["input_ids"]
    assert TextCodec(real_t5).source_ids(TEXTS, length) == expected


def test_t5_targets_end_with_the_end_of_sequence(real_t5):
    codec = TextCodec(real_t5)
    assert codec.answer_cue == ""
    assert codec.target_ids(["0", "1"], 10) == real_t5(["0", "1"])["input_ids"]
    assert [ids[-1] for ids in codec.target_ids(TEXTS, 3)] == [1] * len(TEXTS)


def test_decoder_only_source_is_the_released_codes(gpt2_like):
    """train.py, decoder_preprocess_function: ``f"{x} Label : "``, and the label with an end behind it."""
    codec = CausalTextCodec(gpt2_like)
    for text, ids in zip(TEXTS, codec.source_ids(TEXTS, 100), strict=True):
        assert ids == gpt2_like(f"{text} Label : ")["input_ids"]
        assert gpt2_like.decode(ids) == f"{text} Label : "
    assert codec.target_ids(["yes"], 10) == [[*gpt2_like("yes")["input_ids"], gpt2_like.eos_token_id]]


@pytest.mark.parametrize("text", TEXTS[:4])
def test_the_answer_cue_survives_any_cut(gpt2_like, text):
    codec = CausalTextCodec(gpt2_like)
    whole = codec.source_ids([text], 1000)[0]
    cue = len(gpt2_like(" Label : ")["input_ids"])
    for length in range(cue + 1, len(whole)):
        ids = codec.source_ids([text], length)[0]
        assert len(ids) == length
        assert ids[-cue:] == whole[-cue:]
        assert ids[:-cue] == whole[: length - cue]
    with pytest.raises(ConfigError, match=r"max_source_length: 1 has no room for text before the \d+ tokens of data\."):
        codec.source_ids(["what is this"], 1)


@pytest.mark.parametrize("and_eos", [False, True])
def test_the_beginning_of_sequence_is_kept_and_an_end_is_never_put_behind_a_source(gpt2_like, and_eos):
    tokenizer = with_bos(gpt2_like, and_eos=and_eos)
    codec = CausalTextCodec(tokenizer)
    plain = gpt2_like("what is this Label : ")["input_ids"]
    assert codec.source_ids(["what is this"], 100) == [[0, *plain]]
    cut = codec.source_ids(["what is this"], len(plain))[0]
    assert cut[0] == 0
    assert len(cut) == len(plain)
    assert gpt2_like.decode(cut).endswith(" Label : ")
    assert codec.target_ids(["yes"], 10) == [[*gpt2_like("yes")["input_ids"], 0]]


def test_a_cue_can_be_given_and_taken_away(gpt2_like, real_t5):
    assert CausalTextCodec(gpt2_like, "").source_ids(["No."], 9) == gpt2_like(["No."])["input_ids"]
    with pytest.raises(DataError, match="a source text has no tokens: ''"):
        CausalTextCodec(gpt2_like, "").source_ids(["No.", ""], 9)
    codec = TextCodec(real_t5, " answer:")
    ids = codec.source_ids(["a very long text " * 20], 12)[0]
    assert len(ids) == 12
    assert real_t5.decode(ids).endswith("answer:</s>")


def test_long_texts_are_counted_with_their_cue(gpt2_like):
    codec = CausalTextCodec(gpt2_like)
    lengths = [len(ids) for ids in codec.source_ids(TEXTS, 1000)]
    for limit in range(min(lengths), max(lengths) + 1):
        assert codec.count_longer(TEXTS, limit) == sum(length > limit for length in lengths)


def test_padding_is_the_end_of_sequence_where_there_is_no_other(gpt2_like, real_t5):
    assert CausalTextCodec(gpt2_like).pad_token_id == gpt2_like.eos_token_id
    assert TextCodec(real_t5).pad_token_id == 0


def test_decoding_leaves_special_tokens_out(gpt2_like):
    codec = CausalTextCodec(gpt2_like)
    ids = codec.target_ids(["yes", "no"], 10)
    padded = torch.tensor([row + [gpt2_like.eos_token_id] * (12 - len(row)) for row in ids])
    assert codec.decode(padded) == ["yes", "no"]


def test_labels_keep_all_their_tokens(gpt2_like):
    codec = CausalTextCodec(gpt2_like)
    assert codec.label_ids(["yes", "no"], 10) == codec.target_ids(["yes", "no"], 10)


def test_label_sets_that_cannot_be_scored_are_refused(real_t5):
    codec = TextCodec(real_t5)
    with pytest.raises(ConfigError, match="the one given is empty"):
        codec.label_ids([], 10)
    with pytest.raises(ConfigError, match="cannot tell the labels 'yes' and ' yes' apart"):
        codec.label_ids(["yes", "no", " yes"], 10)
    with pytest.raises(ConfigError, match=r"data\.max_target_length: 2 is shorter than the label '0', which has 3"):
        codec.label_ids(["0"], 2)
