"""Sizes of prompt and update after some steps: they are read from the run, whatever the rates."""

from benchmarks.update_sizes import RATES, train


def test_it_is_the_default_that_does_not_depend_on_the_backbone(t5_folder, label_data, tmp_path):
    size, prompt, update = train(str(t5_folder), label_data, tmp_path / "default", 3, RATES["default"], "cola")
    assert size > 0
    assert prompt > 0 < update
    paper = train(str(t5_folder), label_data, tmp_path / "paper", 3, RATES["paper"], "cola")
    assert paper[2] < update
