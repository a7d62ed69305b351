"""Reading what to predict."""

import json

from dept_vl.inference.inputs import read_inputs


def test_only_line_feeds_end_a_line_of_jsonl(tmp_path):
    texts = ["one\u2028still one", "two\x85still two"]
    file = tmp_path / "inputs.jsonl"
    file.write_text("".join(json.dumps({"sentence": text}, ensure_ascii=False) + "\r\n" for text in texts))
    inputs = read_inputs("cola", image=None, file=file, columns={})
    assert [item.columns["sentence"] for item in inputs] == texts
