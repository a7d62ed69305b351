"""The rules of the PTB lexer: what one token may look like.

Written from the Penn Treebank conventions and from the measured output of Stanford CoreNLP 3.4.1, whose
tokens coco-caption counts (benchmarks/ptb_parity.py). `dept_vl.evaluators.ptb_lexer` says how the rules
are used: the longest match wins, among equals the earlier rule. A group named ``ahead`` is what a rule
looks at behind its token; it counts for the length but is not consumed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from dept_vl.evaluators.ptb_characters import (
    APOSTROPHES,
    DIGITS,
    HYPHENS,
    LETTERS,
    MARKS,
    REPLACEMENTS,
    SOFT_HYPHEN,
    SYMBOLS,
)

_LETTER = f"[{LETTERS}]"
_DIGIT = f"[{DIGITS}]"
_LETTER_OR_DIGIT = f"[{LETTERS}{DIGITS}]"
# An accented vowel may be written as an entity: "caf&eacute;s" is one word.
_ACCENTED = "&[aeiouAEIOU](?:acute|grave|uml);"
_WORD_START = f"[{LETTERS}{MARKS}{SOFT_HYPHEN}&]"
_LETTER_OF_WORD = f"(?:[{LETTERS}{MARKS}{SOFT_HYPHEN}]|{_ACCENTED})"
_WORD_CHARACTERS = f"[{LETTERS}{DIGITS}{MARKS}{SOFT_HYPHEN}]*"
_WORD_PART = f"{_LETTER_OF_WORD}{_WORD_CHARACTERS}(?:{_ACCENTED}{_WORD_CHARACTERS})*"
# A sentence mark between letters without a blank does not end a word: "red.blue" is one token.
_WORD = f"{_WORD_PART}(?:[.!?]{_WORD_PART})*"
_APOSTROPHE = f"(?:[{APOSTROPHES}]|&(?i:apos);)"
_QUOTE_AS_APOSTROPHE = f"(?:[{APOSTROPHES}`\u2018\u201b\u0091]|&(?i:apos);)"
_APOSTROPHE_START = f"[{APOSTROPHES}&]"
_PIECE = rf"(?:[dDlLoO]{_QUOTE_AS_APOSTROPHE}{_LETTER_OR_DIGIT})?{_LETTER_OR_DIGIT}+"
_SUFFIX = rf"{_APOSTROPHE}(?:[sSmMdD]|[lL][lL]|[rR][eE]|[vV][eE])"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])+"
_JOINED_CAPITALS = "[A-Z]+(?:(?:[+&]|&(?i:amp);)[A-Z]+)+"
# Letters and digits in any order, joined by hyphens, each of which may begin as "l'arc" does; soft hyphens end them.
_PIECES = f"{_PIECE}(?:[{HYPHENS}_]{_PIECE})*"
# In ASCII there may be a number with marks before the first hyphen ("5.5-inch"), and initials after one.
_HYPHENATED = rf"[A-Za-z0-9][A-Za-z0-9.,{SOFT_HYPHEN}]*(?:-(?:{_INITIALS}\.|[A-Za-z0-9{SOFT_HYPHEN}]+))+"
_LIST_MARK = "[,;:\u3001]"
_CURLY_QUOTES = "`\u0091-\u0094\u2018-\u201f\u2039\u203a\u00ab\u00bb"
_BLANK = r"[ \u00a0]"
_SPACE = "[ \t\u00a0\u2000-\u200a\u3000]"
_SPACES = "[ \t\u00a0\u2000-\u200a\u3000\n]"

_ATTRIBUTE = r"""[A-Za-z][A-Za-z0-9_.:\-]*(?: *= *(?:"[^"\n]*"|'[^'\n]*'))?"""
_OPENING_TAG = rf"<[A-Za-z][A-Za-z0-9_.:\-]*(?: +{_ATTRIBUTE})* */? *>"
_TAG = rf"(?:{_OPENING_TAG}|</[A-Za-z][A-Za-z0-9_.:\-]* *>|<[!?][A-Za-z\-][^>\n]*>)"

_SIGNS = "\u207a\u207b\u208a\u208b"
_RAISED = "\u00b2\u00b3\u00b9\u2070\u2074-\u2079"
_LOWERED = "\u2080-\u2089"

# Contractions that are split although they have no apostrophe, and their two parts.
_JOINED_WORDS = (("can", "not"), ("gon", "na"), ("got", "ta"), ("lem", "me"), ("gim", "me"), ("wan", "na"))
JOINED_WORDS = frozenset(first + second for first, second in _JOINED_WORDS)

# Abbreviations that keep their period wherever they stand: titles, streets, military and public office.
_TITLES = (
    "adj adm adv alex asst atty ave brig capt cf cie cmdr col cpl dept det dr drs elec ens ft gen gov govs "
    "hon insp invt jos lieut lt maj mlle mme mr mrs ms msgr mt natl pfc ph pres prof pvt rep reps rev sen "
    "sens sfc sgt spc st ste supt vs wm"
)
# Abbreviations that may end a sentence: months, days, American states, companies and the like.
_ENDINGS = (
    "al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb "
    "fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct "
    "okla penn plc rd rt sep sept seq sq sr sys tel tenn thu tue tues univ va vt wed wis wisc wyo"
)
# Words as well, and abbreviations only with a capital: "Miss." and "Mass.", but not "mass.".
_CAPITAL_ENDINGS = "ark az del ill la mass miss ore pa tex wash"
# Abbreviations only before a number.
_BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"
# A name with one of these at its end is one token, whatever it begins with: "1.jpg".
_EXTENSIONS = (
    "bat bmp c class cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps py sql "
    "tar txt wav x xml zip"
)
# After initials and a blank these words, with a capital, begin a sentence: "Plan B. The" ends with "B".
_SENTENCE_STARTS = (
    "a about according additionally after an as at but earlier he her here however if in it last many more "
    "now once one other our she since so some such that the their then there these they this we what when "
    "while yet you"
)


@dataclass(frozen=True)
class Rule:
    """One kind of token.

    Attributes:
        first: What the first character must match, to skip the rule quickly.
        pattern: The token, and what it looks at behind itself as the group ``ahead``.
        replace: How the token is written; None where it stays as it is.
    """

    first: re.Pattern[str]
    pattern: re.Pattern[str]
    replace: Callable[[str], str] | None = None


def _rule(first: str, pattern: str, replace: Callable[[str], str] | None = None) -> Rule:
    """Returns a compiled rule."""
    return Rule(re.compile(first), re.compile(pattern), replace)


def _ahead(pattern: str) -> str:
    """Returns the pattern of something that must follow and counts for the length of the match."""
    return f"(?=(?P<ahead>{pattern}))"


def _one_of(words: str) -> str:
    """Returns the pattern of any of the blank-separated words."""
    return f"(?:{'|'.join(sorted(words.split(), key=len, reverse=True))})"


def _capitalised(words: str) -> str:
    """Returns the pattern of any of the words with a capital first letter, the others in any case."""
    longest_first = sorted(words.split(), key=len, reverse=True)
    return f"(?:{'|'.join(f'{word[0].upper()}(?i:{word[1:]})' for word in longest_first)})"


def _without_soft_hyphens(token: str) -> str:
    """Returns a word without U+00AD; a lone one is a hyphen."""
    return token.replace("\u00ad", "") or "-"


def _escape_brackets(token: str) -> str:
    """Returns a token with Penn Treebank names for its round brackets, also inside emoticons."""
    return token.replace("(", "-lrb-").replace(")", "-rrb-")


def _replace_characters(token: str) -> str:
    """Returns a token with the characters of `REPLACEMENTS` replaced."""
    return "".join(REPLACEMENTS.get(character, character) for character in token)


def _unescape_ampersands(token: str) -> str:
    """Returns a token with its ampersands as they are."""
    return re.sub("(?i)&amp;", "&", token)


def _join_blanks(token: str) -> str:
    """Returns a token with its blanks as U+00A0, which keeps it one token ("1 1/2")."""
    return token.replace(" ", "\u00a0")


def _word_rules() -> list[Rule]:
    """Returns the rules of words, contractions and hyphenated words."""
    not_ = f"[nN]{_QUOTE_AS_APOSTROPHE}[tT]"
    name = rf"[dlnoA-HJ-XZ]{_QUOTE_AS_APOSTROPHE}{_LETTER}{{2,}}"
    return [
        *(_rule(f"(?i:{a[0]})", f"(?i:{a}{_ahead(b)})") for a, b in _JOINED_WORDS),
        _rule("'", f"'[tT]{_ahead('(?i:was|is)')}"),
        _rule(_WORD_START, _WORD, _without_soft_hyphens),
        # "don't" is "do" and "n't"; "'s", "'ll" and so on are tokens of their own.
        _rule("[A-Za-z]", f"[A-Za-z]*[A-MO-Za-mo-z]{_ahead(not_)}"),
        _rule("[nN]", not_, lambda token: re.sub("[\u2018\u201b\u0091]", "`", _straighten(token))),
        _rule(_WORD_START, _WORD + _ahead(_SUFFIX), _without_soft_hyphens),
        _rule(_APOSTROPHE_START, f"{_SUFFIX}{_ahead('[^A-Za-z]')}", _straighten),
        *_apostrophe_word_rules(),
        _rule("[A-Za-z]", name),
        _rule(_LETTER, rf"{_LETTER}+[aeiouyAEIOUY]{_QUOTE_AS_APOSTROPHE}[A-Zaeiou]{_LETTER}*"),
        _rule("[A-Za-z]", rf"{_INITIALS}\.(?:-[A-Za-z0-9]+)+"),
        _rule("[aApP]", "(?i:anti|pro)-"),
        _rule(
            "[A-Za-z0-9]",
            r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
        ),
        _rule("[A-Z]", _JOINED_CAPITALS, _unescape_ampersands),
    ]


def _straighten(token: str) -> str:
    """Returns a token with straight apostrophes; of entities, those in lower case only."""
    return re.sub(f"[{APOSTROPHES}]|&apos;", "'", token)


def _apostrophe_word_rules() -> list[Rule]:
    """Returns the rules of words that begin or end with an apostrophe, and of some that have one inside."""
    a = _APOSTROPHE
    return [
        _rule(_APOSTROPHE_START, rf"{a}[nN]{a}?|(?i:{a}(?:em|cause|till?))"),
        _rule("[a-zA-Z]", rf"(?i:[ldj]|dunkin|somethin|ol){a}"),
        _rule("[yY]", f"[yY]{a}{_ahead(_LETTER)}"),
        _rule("[oO]", f"[oO]{_QUOTE_AS_APOSTROPHE}[oO]"),
        _rule("[cesCESoO]", rf"(?i:o{_QUOTE_AS_APOSTROPHE}clock|c{a}est|c'mon|e'er|s'mores)"),
        _rule(_APOSTROPHE_START, rf"{a}(?:[2-9]0[sS]|{_DIGIT}{{2}}{_ahead(_SPACES)})"),
    ]


def _abbreviation_rules() -> list[Rule]:
    """Returns the rules of abbreviations and initials, whose period belongs to the token, and of hyphenated words."""
    starts = "|".join(f"{word.capitalize()}|{word.upper()}" for word in _SENTENCE_STARTS.split())
    ending = rf"(?:(?i:{_one_of(_ENDINGS)}|(?:ph|ed)\.d)|{_capitalised(_CAPITAL_ENDINGS)}|(?:[Pp]p?te|[Pp]p?ty)s?)"
    part, after = f"(?:{_LETTER_OF_WORD}|{_DIGIT})+", f"{_SPACES}|[.?!,]"
    abbreviable = f"(?:{_WORD}|{_JOINED_CAPITALS})"
    return [
        _rule("[A-Za-z]", rf"(?i:{_one_of(_TITLES)}|[a-z])\.|[Mm][ft]g\."),
        _rule("[A-Za-z]", "[A-Za-z]" + _ahead(rf"\.{_SPACES}+(?:{starts}|M[rR]\.|M[sS]\.|{_TAG}){_SPACES}")),
        _rule("[A-Za-z]", rf"{ending}\.(?:{_ahead('(?s:..)')})?"),
        _rule("[A-Za-z]", rf"(?i:{_one_of(_BEFORE_NUMBERS)})\." + _ahead(f"{_SPACES}?{_DIGIT}")),
        _rule("[A-Za-z]", rf"{_INITIALS}\."),
        _rule(
            f"{_WORD_START}|{_DIGIT}",
            rf"(?:{abbreviable}|{_HYPHENATED}|{_PIECES})\.{_ahead(_LIST_MARK)}",
            _unescape_ampersands,
        ),
        _rule(f"{_WORD_START}|{_DIGIT}", rf"(?:{part}\.)+(?i:{_one_of(_EXTENSIONS)}){_ahead(after)}"),
        _rule(_LETTER_OR_DIGIT, _PIECES),
        _rule("[A-Za-z0-9]", _HYPHENATED, _without_soft_hyphens),
    ]


def _number_rules() -> list[Rule]:
    """Returns the rules of numbers, fractions, dates, telephone numbers and words that begin with a digit."""
    d = _DIGIT
    phone = (
        rf"(?:\([0-9]{{2,3}}\){_BLANK}?|(?:\+\+?)?(?:[0-9]{{2,4}}(?:{_BLANK}|-))?[0-9]{{2,4}}(?:{_BLANK}|-))"
        rf"[0-9]{{3,4}}(?:{_BLANK}|-)?[0-9]{{3,5}}"
    )
    return [
        _rule(
            rf"[-+{DIGITS}.,:{SOFT_HYPHEN}]",
            rf"[-+]?(?:{d}*(?:[.:,\u066b\u066c{SOFT_HYPHEN}]{d}+)+|{d}+)",
            _without_soft_hyphens,
        ),
        _rule(d, rf"(?:{d}{{1,4}}(?:{_BLANK}|-))?{d}{{1,4}}\\?[/\u2044]{d}{{1,4}}", _join_blanks),
        _rule(d, rf"{d}{{1,2}}[-/]{d}{{1,2}}[-/]{d}{{2,4}}"),
        _rule(r"[(+0-9]", phone, lambda token: _escape_brackets(_join_blanks(token))),
        _rule("[A-Z]", r"[A-Z]+\$"),
        # Superscripts or subscripts, with a sign of theirs before them.
        _rule(f"[{_SIGNS}{_RAISED}{_LOWERED}]", f"[{_SIGNS}]?(?:[{_RAISED}]+|[{_LOWERED}]+)"),
    ]


def _web_rules() -> list[Rule]:
    """Returns the rules of markup, addresses, user names, hashtags and emoticons."""
    open_eye = "><~='x^"
    eye = rf"{open_eye}\-"
    host = r"(?:[a-z#%&*+~]|[^\x00-\x7f])+"
    end = r"""\x20\t\n\f\r"<>|"""  # no other blank ends an address
    path = rf"""(?:/[^{end}()]+[^{end}.!?(){{}},\-])?"""
    mailbox = rf"""(?:mailto:)?[A-Za-z0-9][^{end}\xa0(){{}}]*@(?:[^{end}\xa0().{{}}]+\.)*[^{end}\xa0().{{}}]+"""
    return [
        _rule("<", _TAG, _join_blanks),
        _rule("h|H", rf"""(?i:https?)://[^{end}(){{}}]+[^{end}.!?(){{}},\-]"""),
        _rule("w|W", rf"""(?i:www)\.(?:[^{end}.!?(){{}},]+\.)+[A-Za-z]{{2,4}}{path}"""),
        _rule(r"[a-z#%&*+~]|[^\x00-\x7f]", rf"(?:{host}\.)+(?i:com|net|org|edu){path}"),
        _rule("[<&A-Za-z0-9]", f"(?:<|&(?i:lt);)?{mailbox}(?:>|&(?i:gt);)?"),
        _rule("[@#]", rf"@[A-Za-z_][A-Za-z0-9_]*|#{_LETTER_OF_WORD}+"),
        _rule("[<>:;=]", r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?=[^A-Za-z0-9])", _escape_brackets),
        _rule(rf"[{eye}]", rf"[{eye}]_[{eye}]"),
        _rule(r"\(", rf"\([{eye}][_.]?[{eye}]\)|\([{open_eye}]-[{open_eye}`]\)", _escape_brackets),
        _rule("[CFcf]", r"[CFcf]#|[Cc]\+\+"),
    ]


def _entity_rules() -> list[Rule]:
    """Returns the rules of HTML entities, of which a few are written as their character."""
    characters = {"nbsp": "", "amp": "&", "lt": "<", "gt": ">", "quot": "''", "apos": "'", "mdash": "--", "ndash": "--"}
    names = "|".join(characters)
    return [
        _rule("&", f"&(?i:{names});", lambda token: characters[token[1:-1].lower()]),
        _rule("&", "&(?i:MD);", lambda token: "--"),
        _rule("&", r"&(?:#[0-9]+|HT|TL|UR|LR|QC|QL|QR|odq|cdq);"),
    ]


def _symbol_rules() -> list[Rule]:
    """Returns the rules of quotes, dashes, dots and everything else that is not a word."""
    return [
        _rule(_SPACE, f"{_SPACE}+", lambda token: ""),
        _rule("-", "-(?i:[lr][rcs]b)-"),
        _rule(r"\.", rf"\.{{3,5}}|\.(?:{_BLANK}\.){{2,}}", lambda token: "..."),
        _rule("-", "-{2,}", lambda token: "--" if len(token) < 5 else token),
        _rule("[!?]", "[!?]+"),
        # A double quote opens before a letter, a digit or a dollar, and closes anywhere else.
        _rule('"', f'"{_ahead("[A-Za-z0-9$]")}', lambda token: "``"),
        _rule('"', '"', lambda token: "''"),
        _rule("'", "'" + _ahead(r"[A-Za-z][^\s]"), lambda token: "`"),
        _rule(_APOSTROPHE_START, _SUFFIX, _straighten),
        _rule("'", "''?"),
        # Two curly quotes without a blank between them are one token, whatever they are.
        _rule(f"[{_CURLY_QUOTES}]", f"[{_CURLY_QUOTES}]{{1,2}}", _replace_characters),
        _rule(r"[*#@_<>]", r"\*+|#+|@+|_+|<<|>>"),
        _rule(r"\\", r"\\\*"),
        _rule(
            ".",
            f"[{SYMBOLS}{''.join(map(re.escape, REPLACEMENTS))}]",
            _replace_characters,
        ),
    ]


@cache
def lexer_rules() -> tuple[Rule, ...]:
    """Returns all rules, the first of equally long matches first. Compiled at the first call (0.3 s)."""
    return (
        *_entity_rules(),
        *_word_rules(),
        *_web_rules(),
        *_number_rules(),
        *_abbreviation_rules(),
        *_symbol_rules(),
    )
