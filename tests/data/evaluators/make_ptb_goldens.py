"""Makes ptb_goldens.json: what the Stanford tokenizer makes of each line of ptb_texts.txt. Needs Java.

python make_ptb_goldens.py
"""

import json
import subprocess
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Writes ptb_goldens.json beside this file: [text, tokens joined by blanks] by line."""
    texts = (HERE / "ptb_texts.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    jar = files("pycocoevalcap") / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    result = subprocess.run(command, input="\n".join(texts).encode(), capture_output=True, check=True)
    lines = result.stdout.decode().split("\n")
    pairs = [[text, line] for text, line in zip(texts, lines, strict=True)]
    content = json.dumps(pairs, ensure_ascii=False, indent=0)
    (HERE / "ptb_goldens.json").write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
