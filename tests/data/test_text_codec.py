"""What text becomes for T5 and for decoder-only models."""

import json

import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from dept_vl.data.text_codec import CausalTextCodec, TextCodec
from dept_vl.errors import ConfigError, DataError
from tests.models.language.causal_folders import byte_level_tokenizer, gemma_tokenizer, metaspace_tokenizer

TEXTS = ["Is the sky blue? Yes, said the old man.", "No.", "what is   this", "naïve café über 東京", ""]


@pytest.fixture(scope="module")
def gpt2_like():
    return byte_level_tokenizer([*TEXTS, "Label : Label : yes no", "Caption: yes no", "Answer: yes no"])


@pytest.fixture(scope="module")
def llama_like():
    return metaspace_tokenizer([*TEXTS, "Label : Label : yes no", "Caption: yes no", "Answer: yes no"])


@pytest.fixture(scope="module")
def gemma_like():
    return gemma_tokenizer([*TEXTS, "Label : Label : yes no", "Caption: yes no", "Answer: yes no"])


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


def test_a_tokenizer_without_offsets_cuts_itself():
    tokenizer = ByT5Tokenizer()
    (ids,) = TextCodec(tokenizer).source_ids(["a text longer than that"], 9)
    assert ids == tokenizer("a text l")["input_ids"]


def test_t5_targets_end_with_the_end_of_sequence(real_t5):
    codec = TextCodec(real_t5)
    assert codec.answer_cue == ""
    assert codec.target_ids(["0", "1"], 10) == real_t5(["0", "1"])["input_ids"]
    assert [ids[-1] for ids in codec.target_ids(TEXTS, 3)] == [1] * len(TEXTS)


def test_the_released_form_is_the_released_codes(gpt2_like):
    """train.py, decoder_preprocess_function: ``f"{x} Label : "``, and the label with an end behind it."""
    codec = CausalTextCodec(gpt2_like, answer_form="released", task_cue="\nCaption:", has_image=True)
    for text, ids in zip(TEXTS, codec.source_ids(TEXTS, 100), strict=True):
        assert ids == gpt2_like(f"{text} Label : ")["input_ids"]
        assert gpt2_like.decode(ids) == f"{text} Label : "
    assert codec.target_ids(["yes"], 10) == [[*gpt2_like("yes")["input_ids"], gpt2_like.eos_token_id]]
    assert codec.cue_ids == ()


@pytest.mark.parametrize("name", ["gpt2_like", "llama_like", "gemma_like"])
@pytest.mark.parametrize("cue", [" Label :", "\nCaption:", "\nAnswer:\n"])
@pytest.mark.parametrize("answer", ["yes", "no one said so", "東京", "0"])
def test_source_and_target_are_the_tokens_of_one_text(name, cue, answer, request):
    """What a pretrained model has read: the answer's first word with its space, and no space alone before it."""
    tokenizer = request.getfixturevalue(name)
    codec = CausalTextCodec(tokenizer, task_cue=cue)
    gap = "" if cue.endswith("\n") else " "
    for text, source in zip(TEXTS, codec.source_ids(TEXTS, 100), strict=True):
        (target,) = codec.target_ids([answer], 100)
        assert target[-1] == tokenizer.eos_token_id
        assert [*source, *target[:-1]] == tokenizer(f"{text}{cue}{gap}{answer}")["input_ids"]


def test_an_answer_of_one_word_begins_with_its_space(gpt2_like):
    codec = CausalTextCodec(gpt2_like)
    assert codec.answer_cue == " Label :"
    assert gpt2_like.decode(codec.target_ids(["yes"])[0]) == " yes<|endoftext|>"
    assert codec.target_ids([""]) == [[gpt2_like.eos_token_id]]
    assert codec.decode(torch.tensor(codec.target_ids(["yes"]))) == ["yes"]


def test_behind_an_image_the_cue_stands_alone(gpt2_like):
    codec = CausalTextCodec(gpt2_like, task_cue="\nCaption:", has_image=True)
    assert codec.source_ids(["what is this"], 100) == gpt2_like(["what is this"])["input_ids"]
    assert list(codec.cue_ids) == gpt2_like("\nCaption:")["input_ids"]
    assert codec.target_ids(["yes"]) == CausalTextCodec(gpt2_like, task_cue="\nCaption:").target_ids(["yes"])
    assert codec.count_longer(["what is this"], 4) == (len(codec.source_ids(["what is this"], 100)[0]) > 4)


def test_a_plain_cue_that_ends_in_a_space_is_refused(gpt2_like):
    with pytest.raises(ConfigError, match="' Answer: ' ends in a space, which belongs to the answer's first word"):
        CausalTextCodec(gpt2_like, " Answer: ")
    assert CausalTextCodec(gpt2_like, " Answer: ", answer_form="released").answer_cue == " Answer: "


CHAT = (
    "<|endoftext|>{% for message in messages %}{{ message.role }}:\n{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)


@pytest.fixture(scope="module")
def chatty(gpt2_like):
    copied = with_bos(gpt2_like)
    copied.chat_template = CHAT
    return copied


def test_a_chat_is_the_tokenizers_own_template(chatty):
    codec = CausalTextCodec(chatty, answer_form="chat", task_cue="\nCaption:")
    assert codec.answer_cue == "\nassistant:\n"
    for text, ids in zip(TEXTS, codec.source_ids(TEXTS, 100), strict=True):
        messages = [{"role": "user", "content": text}]
        whole = chatty.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert ids == whole
    assert codec.target_ids(["yes"]) == [[*chatty("yes", add_special_tokens=False)["input_ids"], 0]]


def test_a_gemma_s_chat_begins_with_one_beginning_and_its_answer_ends_with_the_end_of_sequence(gemma_like):
    codec = CausalTextCodec(gemma_like, answer_form="chat")
    assert codec.answer_cue == "<end_of_turn>\n<start_of_turn>model\n"
    for text, ids in zip(TEXTS, codec.source_ids(TEXTS, 100), strict=True):
        messages = [{"role": "user", "content": text}]
        assert (
            ids == gemma_like.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        )
        assert ids.count(gemma_like.bos_token_id) == 1
    (plain,) = CausalTextCodec(gemma_like).source_ids(["No."], 100)
    assert plain.count(gemma_like.bos_token_id) == 1
    assert plain[0] == gemma_like.bos_token_id
    (answer,) = codec.target_ids(["yes"])
    assert (gemma_like.decode(answer), codec.pad_token_id) == ("yes<eos>", gemma_like.pad_token_id)


@pytest.mark.parametrize("text", TEXTS[:4])
def test_a_chats_turns_survive_any_cut(chatty, text):
    codec = CausalTextCodec(chatty, answer_form="chat")
    whole = codec.source_ids([text], 1000)[0]
    head, tail = (
        chatty(part, add_special_tokens=False)["input_ids"] for part in ("<|endoftext|>user:\n", "\nassistant:\n")
    )
    assert (whole[: len(head)], whole[-len(tail) :]) == (head, tail)
    for length in range(len(head) + len(tail) + 1, len(whole)):
        (ids,) = codec.source_ids([text], length)
        assert len(ids) == length
        assert ids == whole[: length - len(tail)] + tail
    with pytest.raises(ConfigError, match=r"data\.max_source_length"):
        codec.source_ids([text], len(head) + len(tail))


def test_in_a_chat_the_image_stands_before_the_end_of_the_users_turn(chatty):
    codec = CausalTextCodec(chatty, answer_form="chat", has_image=True)
    assert chatty.decode(codec.source_ids(["what is this"], 100)[0]) == "<|endoftext|>user:\nwhat is this"
    assert chatty.decode(codec.cue_ids) == "\nassistant:\n"


def test_a_chat_without_a_template_is_refused(gpt2_like, real_t5, chatty):
    with pytest.raises(ConfigError, match=r"data\.answer_form: 'chat' needs a tokenizer with a chat template"):
        CausalTextCodec(gpt2_like, answer_form="chat")
    with pytest.raises(ConfigError, match=r"data\.answer_form: 'chat' is a form of decoder-only backbones"):
        TextCodec(real_t5, answer_form="chat")
    with pytest.raises(ConfigError, match=r"data\.answer_cue: ' A:' is not what the tokenizer's chat template has"):
        CausalTextCodec(chatty, " A:", answer_form="chat")


@pytest.mark.parametrize("text", TEXTS[:4])
def test_the_answer_cue_survives_any_cut(gpt2_like, text):
    codec = CausalTextCodec(gpt2_like)
    whole = codec.source_ids([text], 1000)[0]
    cue = len(gpt2_like(" Label :")["input_ids"])
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
    plain = gpt2_like("what is this Label :")["input_ids"]
    assert codec.source_ids(["what is this"], 100) == [[0, *plain]]
    cut = codec.source_ids(["what is this"], len(plain))[0]
    assert cut[0] == 0
    assert len(cut) == len(plain)
    assert gpt2_like.decode(cut).endswith(" Label :")
    assert codec.target_ids(["yes"], 10) == [[*gpt2_like(" yes")["input_ids"], 0]]


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
