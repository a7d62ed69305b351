"""Text from somewhere else: encodings, packed files, pipes of the command line."""

import gzip
import os
import socket
from pathlib import Path

import pytest

from dept_vl.errors import DataError
from dept_vl.system.text_files import is_stream, open_text, parse_lines, read_json, read_text, text_lines

TEXT = "gr\u00fc\u00df \u732b \U0001f600\nsecond"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_byte_order_mark_and_not_the_name_decides(tmp_path, encoding, packed):
    content = b"\xfe\xff" + TEXT.encode("utf-16-be") if encoding == "utf-16-be-mark" else TEXT.encode(encoding)
    path = tmp_path / "a.bin"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_text(path) == TEXT
    with open_text(path) as file:
        assert list(text_lines(file, path)) == TEXT.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9", r"a.txt: not UTF-8 text at byte 3: .*; save it as UTF-8"),
        ("ab".encode("utf-16")[:-1], r"a.txt: not UTF-16-LE text, as its byte order mark says"),
        (b"PK\x03\x04rest", r"a.txt: is a packed file \(a zip archive\); unpack it first"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-5], r"a.txt: the compressed file is cut short or damaged"),
        (gzip.compress(b"x" * 1000, mtime=0)[:15] + b"\xff" * 9, r"a.txt: the compressed file is cut short or damaged"),
    ],
)
def test_what_is_no_text_is_named_whole_or_line_by_line(tmp_path, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text(path)
    with pytest.raises(DataError, match=message), open_text(path) as file:
        file.read()


def test_a_limit_holds_for_packed_text_too(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x" * 20)
    with pytest.raises(DataError, match="larger than 10 bytes"):
        read_text(path, 10)
    path.write_bytes(gzip.compress(b"x" * 2000))
    with pytest.raises(DataError, match="unpacks to more than 100 characters"):
        read_text(path, 100)


def test_json_says_where_it_breaks_off(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(
        DataError, match=r"byte 9 of 18 \(line 2, column 1\): Extra data; more than one value, as JSON l"
    ):
        read_json(path)
    path.write_text('{"a": ')
    with pytest.raises(DataError, match="the file ends there: cut short"):
        read_json(path)


def test_lines_of_json_have_places(tmp_path):
    path = tmp_path / "in.jsonl"
    assert list(parse_lines('{"a": "x\u2028y"}\r\n\n{"a": 2}', path)) == [
        (f"{path}, line 1", {"a": "x\u2028y"}), (f"{path}, line 3", {"a": 2})
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"in.jsonl, line 2: expected an object of columns, got \[1\]"):
        list(parse_lines("{}\n[1]", path))


@pytest.fixture
def piped():
    """Makes a pipe that holds something and is closed by who wrote it; returns its number."""
    opened = []

    def make(content: bytes) -> int:
        end, writer = os.pipe()
        opened.append(end)
        os.write(writer, content)
        os.close(writer)
        return end

    yield make
    for end in opened:
        os.close(end)


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_an_open_pipe_is_read_as_often_as_it_is_looked_at(piped, name):
    path = Path(name.format(piped(gzip.compress(TEXT.encode()))))
    assert is_stream(path)
    assert read_text(path) == read_text(path) == TEXT


def test_standard_input_has_three_names():
    assert [is_stream(Path(name)) for name in ("-", "/dev/stdin", "./-", "a/-")] == [True, True, True, False]


def test_a_socket_and_a_redirected_file_are_read(tmp_path):
    ours, theirs = socket.socketpair()
    theirs.sendall(b"hello")
    theirs.close()
    with ours:
        assert read_text(Path(f"/dev/fd/{ours.fileno()}")) == "hello"
    (tmp_path / "a.txt").write_text("from a file")
    with open(tmp_path / "a.txt", "rb") as file:
        path = Path(f"/dev/fd/{file.fileno()}")
        assert read_text(path) == read_text(path) == "from a file"


def test_a_pipe_has_a_limit_and_a_device_or_a_closed_file_is_none(piped):
    with pytest.raises(DataError, match="is longer than 10 bytes"):
        read_text(Path(f"/dev/fd/{piped(b'x' * 11)}"), 10)
    with open("/dev/null", "rb") as file, pytest.raises(DataError, match="a terminal or a device; pipe a file into it"):
        read_text(Path(f"/dev/fd/{file.fileno()}"))
    with pytest.raises(DataError, match=r"/dev/fd/9999: cannot be read"):
        read_text(Path("/dev/fd/9999"))


def test_a_named_pipe_is_refused_as_no_one_may_write_to_it(tmp_path):
    os.mkfifo(tmp_path / "p")
    with pytest.raises(DataError, match=r"p: cannot be read: is a pipe, .* \(- reads standard input\)"):
        read_text(tmp_path / "p")
