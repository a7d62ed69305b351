"""Measures how well the Python PTB tokenizer agrees with the original on random strings, by kind.

    python -m benchmarks.ptb_fuzz [--number 20000] [--seed 0] [--kinds ascii,latin] [--show 20] [--captions FILE]

Needs Java. For each kind it prints the share of strings with other tokens, and with --show the shortest forms that
still differ: characters are taken away one by one as long as the two disagree. Last result in docs/evaluation.md.

Kinds: `ascii` and `latin` are up to 30 letters, digits, blanks and marks, in other shares in every string; `pieces` are
whole words, abbreviations, numbers and marks, joined with and without blanks; `captions` are captions with one to three
such characters or pieces put in, taken out or doubled; `characters` is every character of the basic plane between two
words, without and with blanks.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.ptb_parity import read_text
from dept_vl.evaluators.ptb_tokenizer import tokenize_ptb
from dept_vl.evaluators.stanford_tokenizer import tokenize_stanford

CAPTIONS = (
    "A man riding a wave on top of a surfboard.",
    "two dogs playing with a red frisbee in the park",
    "A close-up of a plate of food, with broccoli and rice",
    "A woman's hand holding a slice of pizza",
    "There are 3 people standing next to an old-fashioned train.",
    'A stop sign that says "STOP" at 5th Ave. and Main St.',
    "A black & white photo of a man who doesn't look at the camera",
    "People (and a dog) waiting for the bus at 10:30 a.m.",
    "A half eaten sandwich... on a white plate!",
    "The U.S. flag flies over a building; it's windy.",
)
ASCII_MARKS = "".join(chr(code) for code in range(0x21, 0x7F) if not chr(code).isalnum())
LATIN_MARKS = "".join(chr(code) for code in (*range(0xA1, 0xC0), 0xD7, 0xF7))
PUNCTUATION = "".join(
    chr(code)
    for code in range(0x2010, 0x205F)
    if unicodedata.category(chr(code))[0] in "PS" and code not in (0x2028, 0x2029)
)
LATIN_LETTERS = "".join(chr(code) for code in range(0xC0, 0x250) if unicodedata.category(chr(code))[0] == "L")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PIECES = r"""
the cat A dog's U.S. Mr. B. p.m. Ph.D. e.g. etc. Inc. No. St. 5 5.5 1/2 10:30 1,000 2003 $5 5% '80s 'em don't cannot
gonna l'arc o'clock rock-n-roll t-shirt and/or a@b.com www.a.com http://x.y/z #tag @me &amp; &lt; &eacute; &apos;
<b> </b> <br/> :) ;-) ... .. -- --- ! ? ?! , . ; : ' '' " ` `` ( ) [ ] { } / \ | ~ ^ _ __ * + = % # @ & - $ C++ C#
A. final naïve café Über ½ ² ° © ® € £ ¥ ¢ § « » ‹ › “ ” ‘ ’ „ ‚ … – — • · ‼ ‽ ′ ″ ™ № × ÷
"""
PIECES = _PIECES.split()


def _random_string(rng: random.Random, *sets: str) -> str:
    """Returns a string of characters of some sets, each string with shares of its own."""
    shares = [rng.random() ** 2 for _ in sets]
    return "".join(rng.choice(rng.choices(sets, shares)[0]) for _ in range(rng.randrange(1, 31)))


def _ascii(rng: random.Random) -> str:
    return _random_string(rng, LETTERS, "0123456789", " ", ASCII_MARKS)


def _latin(rng: random.Random) -> str:
    return _random_string(rng, LETTERS, LATIN_LETTERS, "0123456789", " ", ASCII_MARKS, LATIN_MARKS, PUNCTUATION)


def _pieces(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) + rng.choice(("", " ", " ")) for _ in range(rng.randrange(1, 12)))


def _caption(rng: random.Random, captions: Sequence[str]) -> str:
    text = rng.choice(captions)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(text) + 1)
        change = rng.randrange(4)
        if change == 0:
            text = text[:place] + rng.choice(ASCII_MARKS + "“”‘’–—…") + text[place:]
        elif change == 1:
            text = text[:place] + rng.choice((" {} ", "{}", " {}", "{} ")).format(rng.choice(PIECES)) + text[place:]
        elif change == 2:
            text = text[: max(place - 1, 0)] + text[place:]
        else:
            text = text[:place] + text[max(place - 1, 0) :]
    return text


KINDS: dict[str, Callable[[random.Random], str]] = {
    "ascii": _ascii,
    "latin": _latin,
    "pieces": _pieces,
    "captions": lambda rng: _caption(rng, CAPTIONS),
}
"""Kind -> what makes a string of it."""


def every_character() -> list[str]:
    """Returns each character of the basic plane that ends no line, between two words without and with blanks."""
    skipped = {*range(0xD800, 0xE000), 0x0A, 0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029, 0xFFFE, 0xFFFF}
    plane = [chr(code) for code in range(0x20, 0x10000) if code not in skipped]
    return [form.format(character) for form in ("cat{}dog", "cat {} dog") for character in plane]


def differing(texts: Sequence[str]) -> list[str]:
    """Returns the texts of which the two tokenizers do not make the same tokens."""
    pairs = zip(texts, tokenize_ptb(texts), tokenize_stanford(texts), strict=True)
    return [text for text, ours, theirs in pairs if ours != theirs]


def shorten(texts: Sequence[str]) -> list[str]:
    """Returns the shortest forms that still differ, each once: one character is taken away after the other."""
    done: dict[str, None] = {}
    left = list(dict.fromkeys(texts))
    while left:
        shorter = {text: [text[:i] + text[i + 1 :] for i in range(len(text)) if len(text) > 1] for text in left}
        bad = set(differing(list(dict.fromkeys(form for forms in shorter.values() for form in forms))))
        still = {text: [form for form in forms if form in bad] for text, forms in shorter.items()}
        done |= dict.fromkeys(text for text, forms in still.items() if not forms)
        left = list(dict.fromkeys(forms[0] for forms in still.values() if forms))
    return sorted(done, key=lambda text: (len(text), text))


def measure(kind: str, texts: Sequence[str], show: int) -> None:
    """Prints the share of texts that differ, and the shortest forms of some of them."""
    bad = differing(texts)
    print(f"{kind:12s} {len(texts):8,d} strings, {len(bad):6,d} differ: {len(bad) / len(texts):.4%}")
    if not show or not bad:
        return
    forms = shorten(bad[: 20 * show])[:show] if kind != "characters" else bad[:show]
    for form, ours, theirs in zip(forms, tokenize_ptb(forms), tokenize_stanford(forms), strict=True):
        print(f"  {form!r:30s} here {ours!r:30s} original {theirs!r}")


def main() -> None:
    """Runs the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--number", type=int, default=20_000, help="strings of each random kind (default: 20,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random strings")
    parser.add_argument(
        "--show", type=int, default=0, help="how many shortest differing forms to print (default: none)"
    )
    parser.add_argument("--kinds", default=",".join([*KINDS, "characters"]), help="which (default: all)")
    parser.add_argument("--captions", type=Path, help="official captions file to change, in place of ten of our own")
    arguments = parser.parse_args()
    captions = CAPTIONS
    if arguments.captions:
        captions = tuple(row["caption"] for row in json.loads(read_text(arguments.captions))["annotations"])
    kinds = {**KINDS, "captions": lambda rng: _caption(rng, captions)}
    for kind in arguments.kinds.split(","):
        rng = random.Random(f"{arguments.seed} {kind}")
        if kind == "characters":
            measure(kind, every_character(), arguments.show)
        elif kind in kinds:
            measure(kind, [kinds[kind](rng) for _ in range(arguments.number)], arguments.show)
        else:
            sys.exit(f"unknown kind {kind!r} (known: {', '.join([*kinds, 'characters'])})")


if __name__ == "__main__":
    main()
