import numpy as np
import pytest
import torch
from datasets import Dataset

from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.data.dataset import TaskDataset
from dept_vl.data.features import FeatureStore
from dept_vl.data.manifest import open_split
from dept_vl.data.sampler import BatchRequest
from dept_vl.data.text_codec import TextCodec
from dept_vl.data.visual import CachedFeatures, ZeroFeatures
from dept_vl.errors import DataError
from dept_vl.tasks import Task, get_task

LENGTHS = {"max_source_length": 16, "max_target_length": 4, "seed": 0}


@pytest.fixture
def tokenizer(t5_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(t5_folder)


@pytest.fixture
def codec(tokenizer):
    return TextCodec(tokenizer)


@pytest.fixture
def rows(tiny_data) -> Dataset:
    return open_split(tiny_data, get_task("vqa"), "train")


def request(*indices, step=0):
    return BatchRequest(step=step, indices=indices, is_last_of_step=True, global_rows=len(indices))


def test_a_batch_holds_template_targets_and_features(rows, tokenizer, codec, tiny_data):
    store = FeatureStore.open(tiny_data / "features" / "random")
    dataset = TaskDataset(rows, get_task("vqa"), codec, visual=CachedFeatures(store), labels="drawn", **LENGTHS)
    batch = dataset.batch(request(3, 0))
    assert batch.example_ids == (rows[3]["example_id"], rows[0]["example_id"])
    text = tokenizer.decode(batch.input_ids[0][batch.attention_mask[0].bool()])
    assert text.split()[:2] == ["vqa", ":"]
    assert text.split()[-1] == "</s>"
    expected = store.read([rows[3]["image_id"], rows[0]["image_id"]]).float()
    assert torch.equal(batch.visual_features, expected)
    drawn = tokenizer.decode(batch.labels[0][batch.labels[0] >= 0], skip_special_tokens=True)
    assert drawn in rows[3]["targets"]


def test_words_stand_before_a_training_text_and_no_other(rows, tokenizer, codec):
    before = ["red red", "what is"]

    def texts(labels, **settings):
        dataset = TaskDataset(rows, get_task("vqa"), codec, labels=labels, words_before=before, **LENGTHS | settings)
        for step in range(12):
            batch = dataset.batch(request(0, 1, step=step))
            for ids, mask, row in zip(batch.input_ids, batch.attention_mask, (0, 1), strict=True):
                yield step, row, tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)

    plain = {row: text for _, row, text in texts("none")}
    assert len({text for *_, text in texts("none")}) == 2
    seen = {text for _, row, text in texts("drawn") if row == 0}
    question = plain[0].removeprefix("vqa : ")
    assert seen == {plain[0], *(f"vqa : {words} {question}" for words in before)}
    assert list(texts("drawn")) == list(texts("drawn"))
    assert list(texts("drawn")) != list(texts("drawn", seed=1))


def test_words_before_a_row_without_a_text_are_refused(rows, codec):
    with pytest.raises(DataError, match=r"data\.words_before: rows of task 'coco' have no text of their own"):
        TaskDataset(rows, get_task("coco"), codec, labels="drawn", words_before=["look"], **LENGTHS)


def test_evaluation_batches_carry_no_labels(rows, codec):
    dataset = TaskDataset(rows, get_task("vqa"), codec, **LENGTHS)
    assert dataset.batch(request(0, 1)).labels.shape == (2, 0)


def test_targets_are_drawn_in_proportion_to_their_weights(codec):
    rows = Dataset.from_list(
        [{"example_id": 1, "question": "what ?", "targets": ["red", "blue"], "target_weights": [0.9, 0.3]}]
    )
    dataset = TaskDataset(rows, get_task("vqa"), codec, labels="drawn", loss_weighting="score", **LENGTHS)
    weights = torch.stack([dataset.batch(request(0, step=step)).loss_weights[0] for step in range(2000)])
    share = (weights > 0.5).float().mean().item()
    assert share == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 2000))
    again = torch.stack([dataset.batch(request(0, step=step)).loss_weights[0] for step in range(50)])
    assert torch.equal(again, weights[:50])


def test_best_target_is_the_heaviest(tokenizer, codec):
    rows = Dataset.from_list(
        [{"example_id": 1, "question": "what ?", "targets": ["red", "blue"], "target_weights": [0.3, 0.9]}]
    )
    dataset = TaskDataset(rows, get_task("vqa"), codec, labels="drawn", target_sampling="best", **LENGTHS)
    labels = [dataset.batch(request(0, step=step)).labels[0].tolist() for step in range(20)]
    assert all(label == tokenizer("blue")["input_ids"] for label in labels)


def test_max_length_padding_fills_to_the_source_length(rows, codec):
    dataset = TaskDataset(rows, get_task("vqa"), codec, padding="max_length", **LENGTHS)
    assert dataset.batch(request(0)).input_ids.shape == (1, 16)


def test_long_texts_are_counted_and_cut(codec):
    rows = Dataset.from_list([{"example_id": n, "question": "what " * n} for n in range(1, 11)])
    dataset = TaskDataset(rows, get_task("vqa"), codec, max_source_length=8, max_target_length=4, seed=0)
    # "vqa", ":", n words and </s>
    assert dataset.count_long() == 5
    assert dataset.source_lengths(range(10)) == [min(n + 3, 8) for n in range(1, 11)]


def test_the_heaviest_target_is_the_first_of_equals_and_a_row_without_one_carries_no_loss(tokenizer, codec):
    targets = ["red", "blue", "two"]
    rows = Dataset.from_list(
        [
            {"example_id": 1, "question": "what ?", "targets": targets, "target_weights": [0.3, 0.9, 0.9]},
            {"example_id": 2, "question": "what ?", "targets": [], "target_weights": []},
        ]
    )
    dataset = TaskDataset(rows, get_task("vqa"), codec, labels="heaviest", loss_weighting="score", **LENGTHS)
    batch = dataset.batch(request(0, 1, step=7))
    assert batch.labels[0].tolist() == tokenizer("blue")["input_ids"]
    assert (batch.labels[1] == IGNORE_INDEX).all()
    assert batch.loss_weights.tolist() == [1.0, 1.0]
    assert dataset.batch(request(1)).labels.shape == (1, 1)
    assert TaskDataset(rows, get_task("vqa"), codec, **LENGTHS).batch(request(0, 1)).labels.shape == (2, 0)
    assert (dataset.has_targets(), dataset.has_targets(1)) == (True, True)
    dataset.indices = dataset.indices[1:]
    assert (dataset.has_targets(), dataset.has_targets(1)) == (False, False)


def test_a_task_without_images_takes_the_same_path(tokenizer, codec):
    task = Task(
        name="color", template=lambda row: f"what color is the {row['thing']} ?", evaluators=(), primary_metric="x",
        max_source_length=16, max_target_length=4, paper="none",
    )  # fmt: skip
    rows = Dataset.from_list([{"example_id": 5, "thing": "ball", "targets": ["red"], "target_weights": [1.0]}])
    batch = TaskDataset(rows, task, codec, labels="drawn", **LENGTHS).batch(request(0))
    assert batch.visual_features is None
    assert tokenizer.decode(batch.input_ids[0]) == "what color is the ball ? </s>"


def test_images_without_features_are_named(rows, codec, tiny_data):
    class Partial(CachedFeatures):
        def missing(self, image_ids):
            return [3, 7]

    store = FeatureStore.open(tiny_data / "features" / "random")
    with pytest.raises(DataError, match=r"no features for 2 of the split's images \(3, 7\)"):
        TaskDataset(rows, get_task("vqa"), codec, visual=Partial(store), **LENGTHS)


def test_rows_of_skipped_images_are_left_out_of_batches_but_counted(rows, codec):
    dataset = TaskDataset(rows, get_task("vqa"), codec, visual=ZeroFeatures(4, 6, skipped=[2, 5]), **LENGTHS)
    left_out = {index for index, image_id in enumerate(rows["image_id"]) if image_id in (2, 5)}
    assert left_out
    assert set(dataset.indices.tolist()) == set(range(60)) - left_out
    assert len(dataset.references()) == len(dataset) == 60


def test_rows_of_the_same_images_have_one_key(rows, codec):
    dataset = TaskDataset(rows, get_task("vqa"), codec, visual=ZeroFeatures(4, 6), rows_per_image=3, **LENGTHS)
    keys, images = dataset.image_keys(range(60)), np.asarray(rows["image_id"])
    assert len(set(zip(keys.tolist(), images.tolist(), strict=True))) == len(set(images)) == len(set(keys)) < 60
    first = dataset.train_batches(3, 0, by_length=True).rows(0)
    assert len({images[row] for row in first}) <= 2
    texts = TaskDataset(rows, get_task("vqa"), codec, **LENGTHS)
    assert texts.image_keys([4, 2]).tolist() == [4, 2]
    with pytest.raises(DataError, match=r"data\.rows_per_image: rows of task 'vqa' have no images; leave it out"):
        TaskDataset(rows, get_task("vqa"), codec, rows_per_image=3, **LENGTHS)


def test_rows_of_the_same_pair_of_images_have_one_key(codec):
    pairs = Dataset.from_dict({"image_id": [[1, 2], [2, 1], [1, 2], [1, 3]], "image": [["a", "b"]] * 4})
    dataset = TaskDataset(pairs, get_task("nlvr2"), codec, visual=ZeroFeatures(4, 6), **LENGTHS)
    one, other, again, third = dataset.image_keys(range(4)).tolist()
    assert one == again
    assert len({one, other, third}) == 3


def test_a_split_of_skipped_images_only_is_refused(rows, codec):
    with pytest.raises(DataError, match=r"every image of the split was skipped"):
        TaskDataset(rows, get_task("vqa"), codec, visual=ZeroFeatures(4, 6, skipped=range(1, 11)), **LENGTHS)


def test_an_empty_split_is_refused(codec):
    empty = Dataset.from_dict({"example_id": [], "question": []})
    with pytest.raises(DataError, match="the split has no rows"):
        TaskDataset(empty, get_task("vqa"), codec, **LENGTHS)
