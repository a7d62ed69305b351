"""Tokenizers, word embeddings and output matrices that do or do not belong together."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dept_vl.errors import ConfigError
from dept_vl.models.language.load import load_backbone
from tests.models.language.causal_folders import SAVE_TINY, byte_level_tokenizer, save_tiny_gpt2

OUTPUT, SHARED = "lm_head.weight", "shared.weight"
ENCODER, DECODER = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"


def written(folder, tmp_path, change, **settings):
    """Copies a backbone with other tensors in its weights, and other settings in its config.json."""
    copied = shutil.copytree(folder, tmp_path / "copy")
    tensors = load_file(copied / "model.safetensors")
    change(tensors)
    save_file(
        {name: tensor.clone() for name, tensor in tensors.items()}, copied / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, **settings}))
    return copied


def renamed(*names):
    """Stores the word embeddings of a T5 under other names."""

    def change(tensors):
        words = tensors.pop(SHARED)
        tensors |= dict.fromkeys(names, words)

    return change


@pytest.mark.parametrize("names", [(SHARED,), (ENCODER,), (DECODER,), (ENCODER, DECODER), (SHARED, ENCODER, DECODER)])
def test_word_embeddings_are_those_of_the_file_whatever_they_are_called(t5_v1_1_folder, tmp_path, names):
    """With the output matrix beside the decoder's, transformers 5.15 takes the output matrix for the words."""
    expected = load_file(t5_v1_1_folder / "model.safetensors")
    model = load_backbone(str(written(t5_v1_1_folder, tmp_path, renamed(*names))))[0].model
    for table in (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens):
        assert table.weight is model.shared.weight
    assert torch.equal(model.shared.weight, expected[SHARED])
    assert torch.equal(model.lm_head.weight, expected[OUTPUT])


def test_an_output_matrix_alone_is_no_word_embeddings(t5_v1_1_folder, tmp_path):
    folder = written(t5_v1_1_folder, tmp_path, lambda tensors: tensors.pop(SHARED), tie_word_embeddings=False)
    with pytest.raises(
        ConfigError, match=r"hold no word embeddings \(shared\.weight or .*lm_head\.weight is there and"
    ):
        load_backbone(str(folder))


def test_an_output_matrix_that_is_the_word_embeddings_is_them(t5_folder, tmp_path):
    folder = written(t5_folder, tmp_path, renamed(OUTPUT))
    model = load_backbone(str(folder))[0].model
    assert model.shared.weight is model.lm_head.weight is model.decoder.embed_tokens.weight
    assert torch.equal(model.shared.weight, load_file(t5_folder / "model.safetensors")[SHARED])


def test_word_embeddings_that_differ_are_refused(t5_folder, tmp_path):
    folder = written(t5_folder, tmp_path, lambda tensors: tensors.update({DECODER: tensors[SHARED] + 1}))
    with pytest.raises(ConfigError, match=r"shared\.weight and decoder\.embed_tokens\.weight of its weights differ"):
        load_backbone(str(folder))


def test_an_output_matrix_that_should_be_the_words_and_is_not_is_refused(t5_folder, tmp_path):
    folder = written(t5_folder, tmp_path, lambda tensors: tensors.update({OUTPUT: tensors[SHARED] * 2}))
    with pytest.raises(ConfigError, match=r"shared\.weight and lm_head\.weight .* differ.*tie_word_embeddings: false"):
        load_backbone(str(folder))


def test_a_promised_output_matrix_that_is_not_there_is_refused(t5_v1_1_folder, tmp_path):
    folder = written(t5_v1_1_folder, tmp_path, lambda tensors: tensors.pop(OUTPUT), tie_word_embeddings=False)
    with pytest.raises(ConfigError, match=r"tie_word_embeddings: false\), and its weights hold no lm_head\.weight"):
        load_backbone(str(folder))


@pytest.mark.parametrize("save", SAVE_TINY.values(), ids=SAVE_TINY.keys())
def test_decoder_only_word_embeddings_may_be_stored_as_the_output_matrix_where_they_are_one(save, tmp_path):
    folder = save(tmp_path / "model")
    words = next(
        name for name in load_file(folder / "model.safetensors") if name.endswith(("wte.weight", "tokens.weight"))
    )

    def change(tensors):
        tensors[OUTPUT] = tensors.pop(words)

    tied = written(folder, tmp_path, change, tie_word_embeddings=True)
    model = load_backbone(str(tied))[0].model
    assert torch.equal(model.get_input_embeddings().weight, load_file(tied / "model.safetensors")[OUTPUT])
    shutil.rmtree(tied)
    with pytest.raises(ConfigError, match=r"hold no word embeddings"):
        load_backbone(str(written(folder, tmp_path, change, tie_word_embeddings=False)))


def test_names_without_the_prefix_of_the_whole_model_are_known(tmp_path):
    """As GPT-2 itself was published."""
    folder = save_tiny_gpt2(tmp_path / "model")
    whole = load_backbone(str(folder))[0].model.state_dict()

    def change(tensors):
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors |= bare

    again = load_backbone(str(written(folder, tmp_path, change)))[0].model.state_dict()
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_tokenizer_larger_than_the_embeddings_is_refused_with_both_numbers(t5_folder, tmp_path):
    copied = shutil.copytree(t5_folder, tmp_path / "t5")
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    added = {str(40): {"content": "<extra>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}}
    settings["added_tokens_decoder"] = {**settings.get("added_tokens_decoder", {}), **added}
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = json.loads((copied / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        {
            "id": 40,
            "content": "<extra>",
            "special": True,
            "single_word": False,
            **dict.fromkeys(("lstrip", "rstrip", "normalized"), False),
        }
    )
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match=r"has 29 tokens, the model 32 word embeddings"):
        load_backbone(str(copied))


def _take_tokenizer(folder, other):
    for path in other.glob("*token*"):
        shutil.copy(path, folder / path.name)


def test_a_tokenizer_of_another_family_is_refused(t5_folder, tmp_path, excerpt):
    t5 = shutil.copytree(t5_folder, tmp_path / "t5")
    gpt2 = save_tiny_gpt2(tmp_path / "gpt2")
    _take_tokenizer(t5, gpt2)
    with pytest.raises(ConfigError, match="it is not the tokenizer of this model"):
        load_backbone(str(t5))
    byte_level_tokenizer(["what color is the small cube"]).save_pretrained(str(tmp_path / "bytes"))
    shutil.copy(tmp_path / "bytes" / "tokenizer.json", t5)
    with pytest.raises(ConfigError, match=r"tokens, the model 32 word embeddings|cannot read its own words"):
        load_backbone(str(t5))


def test_special_tokens_that_are_missing_or_have_no_embedding_are_refused(t5_folder, tmp_path):
    for name, value in (("decoder_start_token_id", None), ("pad_token_id", 32), ("eos_token_id", -1)):
        folder = written(t5_folder, tmp_path / name, lambda tensors: None, **{name: value})
        with pytest.raises(ConfigError, match=rf"{name} of its config\.json is {value}, expected one of the 32 tokens"):
            load_backbone(str(folder))
