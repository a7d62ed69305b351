import gzip
import json
import random
import shutil
from pathlib import Path

import pytest

from dept_vl.evaluators.ptb_lexer import tokenize_lines
from dept_vl.evaluators.ptb_tokenizer import drop_punctuation, tokenize_ptb
from dept_vl.evaluators.stanford_tokenizer import tokenize_stanford

GOLDENS = json.loads(
    (Path(__file__).parents[1] / "data" / "evaluators" / "ptb_goldens.json").read_text(encoding="utf-8")
)
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java, and there is no `java` on the PATH")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's dog doesn't run.", "a man 's dog does n't run ."),
        ("They cannot, they're gonna!", "they can not , they 're gon na !"),
        ('a "stop" sign', "a `` stop '' sign"),
        ("the boys' bikes", "the boys ' bikes"),
        ("5 o'clock rock 'n' roll", "5 o'clock rock 'n' roll"),
        ("Main St. and 5th Ave.", "main st. and 5th ave."),
        ("at 5:30 p.m. in the U.S.", "at 5:30 p.m. in the u.s."),
        ("cats,dogs and 1,000 birds", "cats , dogs and 1,000 birds"),
        ("a black-and-white t-shirt--red", "a black-and-white t-shirt -- red"),
        ("red/green and w/ a hat", "red/green and w / a hat"),
        ("$5 & 5% #1 @home a@b.com", "$ 5 & 5 % # 1 @home a@b.com"),
        ("(a) [b] {c}", "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb-"),
        ("wait... what?! :) so", "wait ... what ?! :-rrb- so"),
        ("caf&eacute;s don&apos;t", "caf&eacute;s do n't"),
        ("b@{c} http://{d} <a ?>", "b @ -lcb- c -rcb- http : / / -lcb- d -rcb- < a ? >"),
        ("see 1.jpg, 3x.pdf or x²³", "see 1.jpg , 3x.pdf or x ²³"),
        ("y' y'all =o| o‘o don‘t", "y ' y' all =o| o‘o do n`t"),
        ("www.a'b.com/x'y etc.-a Ph.D.@x", "www.a'b.com/x'y etc. - a ph.d.@x"),
        ("5\u00ad6 5\u00adb a_\u00adb a-\u00adb", "56 5 b a _ b a-b"),
        ("‼ ‽ \u20a4 cat.\u3001", "\u20a4 cat. \u3001"),
        ("A. <b> B. <c>d", "a . <b> b. <c> d"),
        ("1 1/2 cups of ½", "1\u00a01/2 cups of 1/2"),
        ("don’t “go”—now…", "do n't `` go '' -- now ..."),
        ("see http://a.b/c?d=e.", "see http://a.b/c?d=e ."),
        ("", ""),
    ],
)
def test_penn_treebank_conventions(text, tokens):
    assert tokenize_lines(text) == [tokens.split(" ") if tokens else []]


def test_tokens_equal_those_of_stanford_corenlp():
    texts = [text for text, _ in GOLDENS]
    for (text, expected), tokens in zip(GOLDENS, tokenize_ptb(texts), strict=True):
        assert tokens == drop_punctuation(expected.split(" ")), text


def test_punctuation_goes_and_brackets_stay_because_the_list_is_applied_after_lower_casing():
    assert tokenize_ptb(['A "dog"; (brown), isn\'t it? -- yes...']) == ["a dog -lrb- brown -rrb- is n't it yes"]


def test_initials_at_the_end_look_at_the_next_caption_as_in_the_original():
    assert tokenize_ptb(["Plan B.", "The dog"])[0] == "plan b"
    assert tokenize_ptb(["Plan B.", "Dogs"])[0] == "plan b."
    assert tokenize_ptb(["Plan B."])[0] == "plan b."


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\v", "\f", "\u2028", "\u2029"])
def test_a_line_break_inside_a_caption_is_a_blank(line_break):
    assert tokenize_ptb([f"a cat{line_break}sits\n", "a dog"]) == ["a cat sits", "a dog"]


def test_a_smiley_and_a_file_name_look_at_what_follows_so_that_the_last_caption_differs_as_in_the_original():
    assert tokenize_lines("so :)\nso :)") == [["so", ":-rrb-"], ["so", ":", "-rrb-"]]
    assert tokenize_lines("1.h\n1.h") == [["1.h"], ["1", ".", "h"]]


def test_as_many_results_as_captions():
    assert tokenize_ptb([]) == []
    assert tokenize_ptb([""]) == [""]
    assert tokenize_ptb(["", " ", "a", "\n\n", ""]) == ["", "", "a", "", ""]


def test_characters_that_no_rule_knows_are_deleted():
    assert tokenize_ptb(["a 😀 cat\u200b \x07 \ue000 naps"]) == ["a cat naps"]


def test_odd_long_texts_do_not_make_the_patterns_backtrack_without_end():
    for unit in ("a", "a.", "a-", "'", "a'", "<a ", "1 ", "1/", ". ", "@a", "((", "a@", "&a", "é-", "www.a."):
        assert tokenize_ptb([unit * 300])


PIECES = """the cat A dog's U.S. Mr. B. 5 5.5 1/2 , . ! ? ' " - -- ... ( ) : ; / & # $ @ % ’ “ ” é ½ n't 's o'"""


def random_texts(count):
    generator = random.Random(0)
    return [
        "".join(
            generator.choice(PIECES.split()) + generator.choice(["", " "]) for _ in range(generator.randrange(1, 12))
        )
        for _ in range(count)
    ]


def differing(captions):
    """The captions of which the two tokenizers do not make the same."""
    pairs = zip(captions, tokenize_ptb(captions), tokenize_stanford(captions), strict=True)
    return [caption for caption, ours, theirs in pairs if ours != theirs]


@needs_java
def test_random_texts_give_the_tokens_of_the_original():
    assert differing(random_texts(3000)) == []


def test_real_captions_give_the_tokens_of_the_original(excerpt):
    pairs = json.loads(gzip.decompress((excerpt / "captions" / "tokens.json.gz").read_bytes()))
    captions, tokens = zip(*pairs, strict=True)
    assert len(captions) > 700
    assert tokenize_ptb(captions) == list(tokens)


@pytest.mark.whole
@needs_java
def test_all_real_captions_give_the_tokens_of_the_original(shared_data):
    folder = shared_data / "coco_karpathy_test"
    captions = []
    for name in ("magic_result.json.gz", "zerocap_result.json.gz"):
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            captions += [text for row in json.load(file) for text in [row["prediction"], *row["captions"][:2]]]
    with gzip.open(folder / "VinVL_base_test.tsv.gz", "rt", encoding="utf-8") as file:
        captions += [json.loads(line.split("\t")[1])[0]["caption"] for line in file]
    assert len(captions) > 30_000
    assert differing(captions) == []
