"""The original Stanford PTB tokenizer (CoreNLP 3.4.1, in the pycocoevalcap package), run by Java."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from importlib.resources import as_file, files

from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators.java import require_java
from dept_vl.evaluators.ptb_tokenizer import drop_punctuation, one_line

_JAR = "stanford-corenlp-3.4.1.jar"
_MAIN_CLASS = "edu.stanford.nlp.process.PTBTokenizer"


def tokenize_stanford(captions: Sequence[str]) -> list[str]:
    """Tokenises captions as pycocoevalcap's ``PTBTokenizer`` does, without its files in site-packages.

    Java is started once and reads all captions, a line each, from its standard input.

    Args:
        captions: Raw captions. A line break of any kind inside one counts as a blank: pycocoevalcap
            replaces the newline only, so that there a carriage return moves all later captions on by one.

    Returns:
        For each caption its tokens in lower case without punctuation, joined by blanks.

    Raises:
        ConfigError: There is no Java, or it did not start.
        DataError: It returned another number of lines.
    """
    java = require_java("the Stanford tokenizer", 'use tokenizer "ptb", which gives the same tokens')
    if not captions:
        return []
    text = "\n".join(one_line(caption) for caption in captions)
    with as_file(files("pycocoevalcap") / "tokenizer" / _JAR) as jar:
        command = [java, "-cp", str(jar), _MAIN_CLASS, "-preserveLines", "-lowerCase"]
        result = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    if result.returncode != 0:
        message = result.stderr.decode(errors="replace").strip()[-500:]
        raise ConfigError(f"the Stanford tokenizer failed with code {result.returncode}: {message}")
    lines = result.stdout.decode().split("\n")[: len(captions)]
    if len(lines) != len(captions):
        raise DataError(
            f'the Stanford tokenizer returned {len(lines)} lines for {len(captions)} captions; use tokenizer "ptb"'
        )
    return [drop_punctuation(line.rstrip().split(" ")) for line in lines]
