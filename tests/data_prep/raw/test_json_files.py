"""Reading raw JSON: where it breaks off, and what a record lacks."""

import hashlib

import pytest

from data_prep.raw.json_files import Place, find_raw, read_json, records, take
from dept_vl.errors import DataError


def test_a_file_is_read_with_its_hash(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"images": [{"id": 1}]}')
    file = read_json(path)
    assert records(file, "images") == [{"id": 1}]
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.without_content().content is None
    assert file.without_content().sha256 == file.sha256


def test_the_place_of_a_break_is_in_bytes_and_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes('{"ü": 1,\n"b" 2}'.encode())
    with pytest.raises(DataError, match=r"a.json: not valid JSON at byte 14 of 16 \(line 2, column 5\): Expecting ':'"):
        read_json(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"at byte 0 of 0 .* the file ends there: cut short"):
        read_json(path)
    with pytest.raises(DataError, match=r"gone.json: cannot be read: No such file"):
        read_json(tmp_path / "gone.json")


def test_the_places_looked_at_are_named(tmp_path):
    with pytest.raises(DataError, match=r"x.json or .*annotations/x.json: no such raw file"):
        find_raw(tmp_path, "x.json", "annotations")


def test_a_value_of_another_kind_is_shown(tmp_path):
    place = Place(tmp_path / "a.json", "images", 812)
    with pytest.raises(DataError, match=r'a.json, images, record 812: missing "image_id"; it has \'id\''):
        take({"id": 1}, "image_id", int, place)
    with pytest.raises(DataError, match=r'"id" should be a text, found list \[1, 1, 1, .*\.\.\.$'):
        take({"id": [1] * 100}, "id", str, place)
    assert take({"id": 3}, "id", int, place) == 3
