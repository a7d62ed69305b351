import json
from pathlib import Path

import pytest

from dept_vl.tasks.vqa_answers import (
    clean_whitespace,
    normalise_answer,
    process_digits_and_articles,
    process_punctuation,
    relative_scores,
    soft_score,
    soft_scores,
)

GOLDENS = Path(__file__).parents[1] / "data" / "evaluators" / "vqa_goldens.json"


def test_whitespace_at_the_ends_goes_and_newline_and_tab_become_blanks():
    assert clean_whitespace(" a\nb\tc\n") == "a b c"


@pytest.mark.parametrize(
    ("answer", "processed"),
    [
        ("t-shirt", "t shirt"),  # a mark between letters becomes a blank
        ("t- shirt", "t shirt"),  # a mark that touches a blank is deleted
        ("t-shirt - red", "tshirt  red"),  # ... everywhere in the answer
        ("1,000", "1000"),  # a comma between digits deletes
        ("1,000 t-shirts", "1000 tshirts"),  # ... every mark of the answer
        ("a, b", "a b"),
        ("what?!", "what  "),
        ("mr. smith", "mr smith"),
        ("3.5", "3.5"),  # a period before a digit stays
        (".5", ".5"),
        ("5.", "5"),
        ("a.5", "a.5"),  # the misspelt look-behind: only what follows matters
        ("10:30", "10:30"),
        ("$5 & 5% #1 it's *", "$5 & 5% #1 it's *"),  # marks the script does not know
        ("Yes", "Yes"),
    ],
)
def test_punctuation_follows_the_official_rules(answer, processed):
    assert process_punctuation(answer) == processed


def test_only_the_first_32_periods_are_removed_because_a_flag_is_passed_as_the_count():
    assert process_punctuation("a." * 40) == "a" * 32 + "a." * 8


@pytest.mark.parametrize(
    ("answer", "processed"),
    [
        ("None", "0"),
        ("zero ten", "0 10"),
        ("eleven", "eleven"),
        ("The cat", "cat"),
        ("a", ""),  # the letter is taken for an article
        ("an apple  a day", "apple day"),
        ("dont", "don't"),
        ("Im", "im"),  # the table has "Im", but words are lower-cased first
        ("let's", "let's"),
        ("somebody'd", "somebodyd"),
        ("ow's'at", "'ow's'at"),
    ],
)
def test_words_follow_the_official_rules(answer, processed):
    assert process_digits_and_articles(answer) == processed


def test_normalise_answer_equals_the_official_functions():
    for raw, expected in json.loads(GOLDENS.read_text(encoding="utf-8"))["normalised"].items():
        assert normalise_answer(raw) == expected, raw


@pytest.mark.parametrize(("count", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_soft_score_is_the_leave_one_out_accuracy(count, score):
    left_out_is_a_match = count / 10 * min(1, (count - 1) / 3) if count else 0.0
    left_out_is_another = (10 - count) / 10 * min(1, count / 3)
    assert soft_score(count) == score == pytest.approx(left_out_is_a_match + left_out_is_another)


def test_soft_scores_count_normalised_answers_and_drop_empty_ones():
    answers = ["two"] * 3 + ["2"] + ["The cat", "cat"] + ["Red."] + ["the", "a"] + ["blue"]
    assert soft_scores(answers) == {"2": 1.0, "cat": 0.6, "red": 0.3, "blue": 0.3}


def test_soft_scores_of_articles_alone_are_empty():
    assert soft_scores(["a"] * 10) == {}


@pytest.mark.parametrize(
    ("answers", "scores"),
    [
        (["A"], {"": 1.0}),
        (["red", "blue"], {"red": 1.0, "blue": 1.0}),
        (["Two", "2", "three"], {"2": 1.0, "3": 0.5}),
        (["a"] * 5 + ["yes"] * 2 + ["no"], {"": 1.0, "yes": 2 / 3, "no": 1 / 3}),
    ],
)
def test_relative_scores_are_shares_of_the_most_frequent_answer_up_to_three(answers, scores):
    assert relative_scores(answers) == pytest.approx(scores)
