"""COCO captions: splits, references and counts, on small and on real official files."""

import gzip
import json
import os
from collections import Counter, defaultdict

import pytest

from data_prep.converters.coco_captions import read_captions
from data_prep.prepare import prepare
from data_prep.raw import karpathy
from dept_vl.data.manifest import open_split
from dept_vl.errors import DataError
from dept_vl.tasks import get_task
from tests.data_prep.raw_files import SPLIT_OF, edit, write_json, write_karpathy, write_raw

CAPTIONS = "annotations/captions_train2014.json"


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path / "raw")


def test_training_has_a_row_a_caption_and_tests_a_row_an_image(raw, tmp_path, capsys):
    stats = prepare(get_task("coco"), raw, tmp_path / "out")
    assert capsys.readouterr().out == ""
    train = open_split(tmp_path / "out", get_task("coco"), "train")
    assert train["example_id"][:] == [100, 101, 102, 200, 201, 202, 500, 501, 502]
    row = train[4]
    assert row == {
        "example_id": 201,
        "image_id": 2,
        "image": "val2014/COCO_val2014_000000000002.jpg",
        "targets": ["Caption 1 of 2."],
        "target_weights": [1.0],
        "references": [" Caption 0  of 2.\n", " Caption 1  of 2.\n", " Caption 2  of 2.\n"],
    }
    test = open_split(tmp_path / "out", get_task("coco"), "test")
    assert (test["example_id"][:], test["image_id"][:]) == ([4], [4])
    assert test[0]["targets"] == []
    assert len(test[0]["references"]) == 3
    assert {s: (c.examples, c.images) for s, c in stats.splits.items()} == {
        "train": (9, 3),
        "val": (1, 1),
        "test": (1, 1),
    }
    assert stats.lines()[2] == "coco test: 1 examples on 1 images (a subset; complete: 5,000 on 5,000 images)"


def test_captions_may_lie_directly_in_raw(raw, tmp_path):
    os.rename(raw / CAPTIONS, raw / "captions_train2014.json")
    prepare(get_task("coco"), raw, tmp_path / "out")


def test_what_a_captions_file_holds_beside_captions_is_of_no_matter(raw, tmp_path):
    """``"categories"`` is added so that pycocotools loads results; annotations of captions have no ``category_id``."""
    for number, value in enumerate(([], [{"id": 1, "name": "cat"}], {}, None)):
        edit(raw / CAPTIONS, lambda c, value=value: c.update(categories=value, type="captions", info=None))
        stats = prepare(get_task("coco"), raw, tmp_path / f"out-{number}")
        assert stats.splits["train"].rows == 9


def test_raw_files_may_be_packed(raw, tmp_path):
    (raw / f"{CAPTIONS}.gz").write_bytes(gzip.compress((raw / CAPTIONS).read_bytes()))
    (raw / CAPTIONS).unlink()
    assert prepare(get_task("coco"), raw, tmp_path / "out").splits["train"].rows == 9


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_rows_that_training_needs_is_refused(raw, tmp_path, split):
    write_karpathy(raw, {i: s for i, s in SPLIT_OF.items() if s not in (split, split.replace("train", "restval"))})
    with pytest.raises(DataError, match=rf"task 'coco': {split} would have no rows: the raw files hold 0 examples"):
        prepare(get_task("coco"), raw, tmp_path / "out")
    assert not (tmp_path / "out" / "coco").exists()


def test_training_captions_that_are_all_blank_are_refused(raw, tmp_path):
    for year in ("train2014", "val2014"):
        edit(raw / f"annotations/captions_{year}.json", lambda c: [a.update(caption=" ") for a in c["annotations"]])
    with pytest.raises(DataError, match=r"train would have no rows.*\(9 training captions left out: they have no text"):
        prepare(get_task("coco"), raw, tmp_path / "out")


def test_no_test_split_is_said(raw, tmp_path, caplog):
    write_karpathy(raw, {i: s for i, s in SPLIT_OF.items() if s != "test"})
    prepare(get_task("coco"), raw, tmp_path / "out")
    assert "test would have no rows: the raw files hold 0 examples" in caplog.text


def test_images_without_captions_or_split_are_counted(raw, tmp_path):
    write_karpathy(raw, {**{i: s for i, s in SPLIT_OF.items() if i != 5}, 8: "train"})
    stats = prepare(get_task("coco"), raw, tmp_path / "out")
    assert list(stats.left_out.values()) == [1, 1, 0]
    assert stats.splits["train"].images == 2


def test_a_blank_caption_is_no_target_but_stays_a_reference(raw, tmp_path):
    edit(raw / CAPTIONS, lambda c: c["annotations"][0].update(caption=" \n"))
    stats = prepare(get_task("coco"), raw, tmp_path / "out")
    train = open_split(tmp_path / "out", get_task("coco"), "train")
    assert train["example_id"][:3] == [100, 101, 200]
    assert train[0]["references"][2] == " \n"
    assert (stats.splits["train"].examples, stats.splits["train"].rows) == (9, 8)


def test_complete_karpathy_file_with_other_counts(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(karpathy, "FULL_IMAGES", 5)
    with pytest.raises(DataError, match=r"train: 9 examples on 3 images, expected 566,747 on 113,287"):
        prepare(get_task("coco"), raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annotations"), r'missing "annotations" at the top; it has "info", "licenses", "images"'),
        (lambda c: c.pop("images"), r'missing "images" at the top'),
        (lambda c: c["images"][1].pop("id"), 'images, record 1: missing "id"'),
        (lambda c: c["annotations"][2].pop("caption"), 'annotations, record 2: missing "caption"'),
        (
            lambda c: c["annotations"][2].update(caption=None),
            'record 2: "caption" should be a text, found NoneType null',
        ),
        (lambda c: c["annotations"][2].update(id=102), 'annotations, record 2: "id" 102 is there twice'),
        (lambda c: c["annotations"][2].update(image_id=99), 'captions of image 99, which its "images" do not list'),
        (
            lambda c: c["images"].append({"id": 2}) or c["annotations"][0].update(image_id=2),
            "image 2 is in captions_train",
        ),
    ],
)
def test_wrong_shape_is_named_with_file_and_record(raw, tmp_path, change, message):
    edit(raw / CAPTIONS, change)
    with pytest.raises(DataError, match=message):
        prepare(get_task("coco"), raw, tmp_path / "out")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_truncated_and_missing_files(raw, tmp_path):
    path = raw / CAPTIONS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"captions_train2014.json: not valid JSON at byte .* the file ends there: cut"):
        prepare(get_task("coco"), raw, tmp_path / "out")
    path.unlink()
    with pytest.raises(DataError, match=r"captions_train2014.json: no such raw file"):
        prepare(get_task("coco"), raw, tmp_path / "out")
    with pytest.raises(DataError, match=r"no such folder of raw files"):
        prepare(get_task("coco"), tmp_path / "gone", tmp_path / "out")


# --- real data --------------------------------------------------------------------------------------------------


def read(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def prepare_official(raw, out, splits, train, val):
    """Prepares official files and holds what is written against them: ids, reference order and text."""
    write_json(raw / "dataset_coco.json", splits)
    write_json(raw / "captions_train2014.json", train)
    write_json(raw / "captions_val2014.json", val)
    stats = prepare(get_task("coco"), raw, out, image_check=False)
    captions = defaultdict(dict)
    for annotation in train["annotations"] + val["annotations"]:
        captions[annotation["image_id"]][annotation["id"]] = annotation["caption"]
    for split in ("train", "val", "test"):
        wanted = {"train": ("train", "restval")}.get(split, (split,))
        records = [r for r in splits["images"] if r["split"] in wanted]
        rows = open_split(out, get_task("coco"), split)
        if split == "train":
            assert rows["example_id"][:] == [sentence for r in records for sentence in r["sentids"]]
            assert rows["targets"][:] == [[" ".join(s["raw"].split())] for r in records for s in r["sentences"]]
        else:
            assert rows["example_id"][:] == [r["cocoid"] for r in records]
            assert rows["references"][:] == [[captions[r["cocoid"]][i] for i in r["sentids"]] for r in records]
        by_image = dict(zip(rows["image_id"][:], rows["image"][:], strict=True))
        assert by_image == {r["cocoid"]: f"{r['filepath']}/{r['filename']}" for r in records}
        examples = len(records) if split != "train" else sum(len(r["sentids"]) for r in records)
        assert (stats.splits[split].examples, stats.splits[split].images) == (examples, len(records))
    return stats


def test_real_official_files(excerpt, tmp_path):
    captions = {year: read(excerpt / "captions" / f"captions_{year}.json.gz") for year in ("train2017", "val2017")}
    splits = read(excerpt / "karpathy" / "dataset_coco.json.gz")
    stats = prepare_official(tmp_path / "raw", tmp_path / "out", splits, captions["train2017"], captions["val2017"])
    assert {split: count.images for split, count in stats.splits.items()} == {"train": 25, "val": 15, "test": 100}
    assert list(stats.left_out.values()) == [0, 0, 0]


def test_complete_official_files_with_the_rebuilt_karpathy_file(shared_data, tmp_path):
    """1,565 images, 5,000 + 80 images with captions."""
    official = shared_data / "coco_captions_official"
    splits = read(shared_data / "karpathy" / "dataset_coco_subset_rebuilt.json.gz")
    train, val = read(official / "captions_train2017_mini80.json.gz"), read(official / "captions_val2017.json.gz")
    stats = prepare_official(tmp_path / "raw", tmp_path / "out", splits, train, val)
    assert {split: count.images for split, count in stats.splits.items()} == {"train": 364, "val": 608, "test": 593}
    assert list(stats.left_out.values()) == [3515, 0, 0]


def test_real_captions_on_photographs(photographs, tmp_path):
    """Photographs under the names of 2014 and 2017 in several folders."""
    raw, captions = tmp_path / "raw", photographs.read("captions_images.json")
    write_json(raw / "dataset_coco.json", {"images": photographs.records})
    write_json(raw / "annotations" / "captions_val2014.json", captions)
    write_json(raw / "annotations" / "captions_train2014.json", {"images": [], "annotations": []})
    stats = prepare(get_task("coco"), raw, tmp_path / "out", images=photographs.folder)
    listed = {r["cocoid"]: r["split"].replace("restval", "train") for r in photographs.records}
    expected = Counter(listed[i["id"]] for i in captions["images"] if i["id"] in listed)
    assert set(expected) == {"train", "val", "test"}
    assert {split: count.images for split, count in stats.splits.items()} == expected
    files = photographs.files()
    for split in expected:
        for row in open_split(tmp_path / "out", get_task("coco"), split):
            assert row["image"] in files[row["image_id"]]
            assert (photographs.folder / row["image"]).is_file()


def read_every_caption(path, folder):
    """Reads an official file and holds every caption against it; returns how many there are."""
    source = read(path)
    write_json(folder / "captions_val2014.json", source)
    captions, file = read_captions(folder, "val2014")
    found = {c.caption_id: (image_id, c.caption) for image_id, listed in captions.items() for c in listed}
    assert found == {a["id"]: (a["image_id"], a["caption"]) for a in source["annotations"]}
    assert file.content is None
    return sum(map(len, captions.values()))


def test_every_real_caption_is_read(excerpt, tmp_path):
    assert read_every_caption(excerpt / "captions" / "captions_val2017.json.gz", tmp_path) == 650


def test_every_complete_real_caption_is_read(shared_data, tmp_path):
    path = shared_data / "coco_captions_official" / "captions_val2014_subset4800.json.gz"
    assert read_every_caption(path, tmp_path) == 24_019
