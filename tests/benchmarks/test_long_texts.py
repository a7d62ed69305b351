"""Texts whose places must be told apart: that counting words is of no use, and the comparison from end to end."""

from collections import Counter
from itertools import pairwise

from benchmarks import long_texts
from benchmarks.long_texts import LABELS, ROWS, STRIPES, VARIANTS, draw_rows, main

WORDS = 10 * STRIPES + 6


def test_each_row_has_a_partner_of_the_other_label_with_the_same_words():
    rows = list(draw_rows(WORDS))
    assert Counter(row["split"] for row in rows) == ROWS
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert (first["label"], second["label"], first["split"]) == (*LABELS, second["split"])
        counts = [Counter(row["text"].split()) for row in (first, second)]
        assert counts[0] == counts[1]
        assert counts[0].total() == WORDS


def test_the_first_word_is_more_common_in_odd_stripes_where_it_is_the_label():
    ends = [WORDS * number // STRIPES for number in range(STRIPES + 1)]
    for row in draw_rows(WORDS):
        words = row["text"].split()
        stripes = [words[begin:end] for begin, end in pairwise(ends)]
        odd, even = (Counter(word for stripe in stripes[first::2] for word in stripe) for first in (0, 1))
        shares = [counts[LABELS[0]] / counts.total() for counts in (odd, even)]
        assert (shares[0] > shares[1]) == (row["label"] == LABELS[0])


def test_every_variant_is_trained_and_scored_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(long_texts, "ROWS", {"train": 8, "val": 2, "test": 4})
    monkeypatch.setattr(long_texts, "PRETRAINING_STEPS", 2)
    words = ["--work", str(tmp_path), "--tokens", "128", "--seeds", "0", "--steps", "2"]
    main(words)
    said = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines()]
    assert [row[0] for row in cells] == ["", *VARIANTS, "majority class"]
    sizes = {row[0]: row[1:3] for row in cells[1:-1]}
    assert sizes["dept"] == [str(8 * 32 + (64 + 32) * 4), str(8 * 32 + (128 + 32) * 4)]
    assert sizes["dept-16-rows"] == [str(8 * 32 + (16 + 32) * 4)] * 2
    assert cells[-1][3] == "50.0"
    monkeypatch.setattr(long_texts, "_dept_vl", None)
    main(words)
    again = [line.rsplit("|", 2)[0] for line in capsys.readouterr().out.splitlines()]
    assert again == [line.rsplit("|", 2)[0] for line in said.splitlines()]
