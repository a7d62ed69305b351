"""``python -m benchmarks.paper_configs`` writes the files anew."""

from benchmarks.paper_configs.files import PAPER, paper_files

if __name__ == "__main__":
    for path, text in paper_files().items():
        target = PAPER / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
