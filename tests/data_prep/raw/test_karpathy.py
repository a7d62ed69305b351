"""The Karpathy file: real records, the other data sets in its format, and where images lie."""

import gzip
import json
import logging

import pytest
from PIL import Image

from data_prep.prepare import prepare
from data_prep.raw.karpathy import Caption, read_karpathy
from dept_vl.data.image_files import locate_images
from dept_vl.data.manifest import open_split
from dept_vl.errors import DataError
from dept_vl.tasks import get_task
from tests.data_prep.raw_files import SPLIT_OF, edit, official_path, write_images, write_json, write_karpathy


def test_restval_is_training(tmp_path):
    write_karpathy(tmp_path)
    splits = read_karpathy(tmp_path)
    assert splits.split_of == {1: "train", 2: "train", 3: "val", 4: "test", 5: "train"}
    assert splits.path_of[2] == "val2014/COCO_val2014_000000000002.jpg"
    assert not splits.is_full
    assert splits.file.content is None


def test_the_two_original_records(excerpt, tmp_path):
    source = excerpt / "karpathy" / "original_records.json"
    (tmp_path / "dataset_coco.json").write_bytes(source.read_bytes())
    splits = read_karpathy(tmp_path)
    assert splits.split_of == {391895: "test", 537772: "train"}
    assert splits.path_of[391895] == "val2014/COCO_val2014_000000391895.jpg"


def flickr_file(path, splits=("train", "val", "test")):
    """Karpathy's own for Flickr8k has neither `filepath` nor `cocoid`."""
    records = []
    for number, split in enumerate(splits):
        texts = [f"A dog runs {2 * number + n} ." for n in range(2)]
        sentences = [{"tokens": [], "raw": t, "imgid": number, "sentid": 2 * number + n} for n, t in enumerate(texts)]
        records.append({"imgid": number, "sentences": sentences, "split": split, "filename": f"{number}_2.jpg"})
    return write_json(path, {"images": records, "dataset": "flickr8k"})


def test_a_flickr_file_under_cocos_name_is_refused_with_its_right_name(tmp_path):
    flickr_file(tmp_path / "dataset_coco.json")
    message = r'dataset_coco.json, images, record 0: missing "cocoid"; it has .* call it dataset_flickr30k.json'
    with pytest.raises(DataError, match=message):
        read_karpathy(tmp_path)


def test_a_flickr_file_brings_its_captions(tmp_path):
    flickr_file(tmp_path / "dataset_flickr8k.json")
    splits = read_karpathy(tmp_path)
    assert splits.path_of == {0: "0_2.jpg", 1: "1_2.jpg", 2: "2_2.jpg"}
    assert splits.sentences[1] == [Caption(2, "A dog runs 2 ."), Caption(3, "A dog runs 3 .")]
    assert not splits.is_full
    edit(tmp_path / "dataset_flickr8k.json", lambda c: c["images"][0]["sentences"][0].update(sentid=3))
    with pytest.raises(DataError, match='"sentid" 3 is there twice'):
        read_karpathy(tmp_path)


def test_a_flickr_file_is_prepared_for_captions_and_refused_for_questions(tmp_path):
    flickr_file(tmp_path / "raw" / "dataset_flickr30k.json")
    stats = prepare(get_task("coco"), tmp_path / "raw", tmp_path / "out", image_check=False)
    assert stats.lines()[:3] == [
        "coco train: 2 examples on 1 images", "coco val: 1 examples on 1 images", "coco test: 1 examples on 1 images"
    ]  # fmt: skip
    assert stats.is_subset
    row = open_split(tmp_path / "out", get_task("coco"), "train")[1]
    assert (row["targets"], row["image"]) == (["A dog runs 1 ."], "0_2.jpg")
    with pytest.raises(DataError, match=r"dataset_flickr30k.json: not COCO's images, which vqa asks about"):
        prepare(get_task("vqa"), tmp_path / "raw", tmp_path / "out")


def test_split_ids_are_those_of_the_published_lists(excerpt, tmp_path):
    data = gzip.decompress((excerpt / "karpathy" / "dataset_coco.json.gz").read_bytes())
    (tmp_path / "dataset_coco.json").write_bytes(data)
    splits = read_karpathy(tmp_path)
    for split, count in (("val", 15), ("test", 100)):
        lines = (excerpt / "karpathy" / f"{split}_images.txt").read_text().splitlines()
        published = {int(line.split()[1]): line.split()[0] for line in lines}
        assert len(published) == count
        assert {i: splits.path_of[i] for i, s in splits.split_of.items() if s == split} == published


def test_split_ids_agree_with_the_complete_published_lists(shared_data, tmp_path):
    folder = shared_data / "karpathy"
    data = gzip.decompress((folder / "dataset_coco_subset_rebuilt.json.gz").read_bytes())
    (tmp_path / "dataset_coco.json").write_bytes(data)
    splits = read_karpathy(tmp_path)
    for split in ("val", "test"):
        lines = gzip.decompress((shared_data / "coco_karpathy_test" / f"karpathy_{split}_images.txt.gz").read_bytes())
        published = {int(line.split()[1]): line.split()[0] for line in lines.decode().splitlines()}
        assert len(published) == 5000
        ours = {i: splits.path_of[i] for i, s in splits.split_of.items() if s == split}
        assert ours.items() <= published.items()
        assert not [i for i, s in splits.split_of.items() if s != split and i in published]


def test_image_names_of_both_years_in_any_folder(tmp_path, caplog):
    def touch(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)

    official = {i: official_path(i, "val") for i in range(1, 7)}
    touch(official[1])
    touch("a/b/val2017/000000000002.jpg")
    touch("deep/COCO_val2014_000000000003.jpg")
    touch("000000000004.jpg")
    touch("a/COCO_train2014_000000000005.jpg")
    touch("z/000000000006.jpg")
    touch("y/000000000006.jpg")
    touch("y/000000000007.jpg")
    touch("y/6.jpg")
    with caplog.at_level(logging.WARNING):
        assert locate_images(tmp_path, official) == {
            1: official[1],
            2: "a/b/val2017/000000000002.jpg",
            3: "deep/COCO_val2014_000000000003.jpg",
            4: "000000000004.jpg",
            5: "a/COCO_train2014_000000000005.jpg",
            6: "y/000000000006.jpg",
        }
    assert "1 images are there more than once and the first was taken, e.g. y/000000000006.jpg" in caplog.text


def test_links_to_folders_are_followed_once(tmp_path):
    write_images(tmp_path / "disk")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "raw")
    found = locate_images(tmp_path / "raw", {1: official_path(1, "train")})
    assert found == {1: "images/train2014/COCO_train2014_000000000001.jpg"}


def test_missing_images(tmp_path):
    write_images(tmp_path)
    official = {i: official_path(i, SPLIT_OF.get(i, "val")) for i in range(1, 20)}
    with pytest.raises(
        DataError, match=r"14 of 19 images are missing: val2014/COCO_val2014_000000000006.jpg, .*, \.\.\."
    ):
        locate_images(tmp_path, official)
    with pytest.raises(DataError, match="no such folder of images"):
        locate_images(tmp_path / "gone", official)


def test_deeply_broken_json(tmp_path):
    write_json(tmp_path / "dataset_coco.json", json.loads('{"images": [{"cocoid": 1.5}]}'))
    with pytest.raises(DataError, match=r'"cocoid" should be a whole number, found float 1.5'):
        read_karpathy(tmp_path)
