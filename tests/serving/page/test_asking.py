"""What the page asks and draws, without the page: images encoded once, adapters compared, rows of splits."""

import pytest

import dept_vl
from dept_vl.errors import ConfigError, DataError
from dept_vl.serving.page import views
from dept_vl.serving.page.asking import NUM_LIKELIEST, Asker, Question
from dept_vl.serving.page.split_rows import SplitRows
from dept_vl.serving.startup import read_runs
from tests.serving.conftest import no_check, png
from tests.serving.page.conftest import a_service

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

COLOR, HOW_MANY = ({"question": text} for text in ("what color is the ball ?", "how many ?"))


@pytest.fixture(scope="module")
def service(served_runs):
    with a_service([served_runs / name for name in ("one", "two", "captions", "rte")], max_text=1000) as found:
        yield found


def images(service):
    """Returns how many images were kept already, and how many encoded."""
    lines = dict(line.rsplit(" ", 1) for line in service.metrics.text(queue_length=0, adapters=0).splitlines())
    return [int(float(lines[f"dept_vl_image_cache_{kind}_total"])) for kind in ("hits", "misses")]


def test_a_second_question_about_an_image_and_another_adapter_encode_nothing(service):
    asker, before = Asker(service), images(service)
    asker.ask(["one"], [Question(COLOR, (png(41),))])
    asker.ask(["one"], [Question(HOW_MANY, (png(41),))])
    asker.ask(["two"], [Question(COLOR, (png(41),))])
    assert [now - then for now, then in zip(images(service), before, strict=True)] == [2, 1]


def test_answers_and_their_probabilities_are_those_of_each_run_in_python(service, served_runs):
    (found,) = Asker(service).ask(["one", "two"], [Question(COLOR, (png(1),))])
    for name, told in found.told.items():
        model = dept_vl.load(served_runs / name)
        assert told.answer.text == model.answer(png(1), **COLOR)
        assert told.answer.text in [one.text for one in told.answer.likeliest]
        assert len(told.answer.likeliest) <= NUM_LIKELIEST + 1
    assert found.differs == (found.told["one"].answer.text != found.told["two"].answer.text)
    pair = {"sentence1": "the ball is red", "sentence2": "red ball"}
    (found,) = Asker(service).ask(["rte"], [Question(pair)])
    expected = dept_vl.load(served_runs / "rte").probabilities(**pair)
    assert {one.text: one.probability for one in found.told["rte"].answer.likeliest} == pytest.approx(expected)


def test_adapters_are_compared_with_those_that_take_the_same(service):
    asker = Asker(service)
    assert [asker.partners(name) for name in ("one", "two", "captions", "rte")] == [["two"], ["one"], [], []]
    for name in ("none", "<b>", 7, None):
        with pytest.raises(ConfigError, match="there is no adapter called"):
            asker.adapter(name)


def test_a_text_that_is_too_long_is_refused_before_it_is_tokenised(service):
    with pytest.raises(ConfigError, match="question: a text of 10,000,000 characters; at most 1,000 are read"):
        Asker(service).ask(["one"], [Question({"question": "a" * 10_000_000}, (png(),))])


def test_rows_are_drawn_with_their_images_and_what_people_answered(served_runs, rows_dir):
    (run,) = read_runs([str(served_runs / "one")], {}, no_check)
    rows = SplitRows(run, rows_dir)
    assert (rows.splits, rows.why_none) == (("test",), "")
    drawn = rows.draw("test", 20)
    assert len({row.place for row in drawn}) == 9
    assert all(row.images[0].is_file() and row.columns["question"] and row.references for row in drawn)
    assert len(rows.draw("test", 2)) == 2
    with pytest.raises(DataError, match=r"'\.\./x': expected one of test"):
        rows.draw("../x", 1)


def test_why_nothing_can_be_drawn_is_said(served_runs, tmp_path):
    (run,) = read_runs([str(served_runs / "one")], {}, no_check)
    assert SplitRows(run, tmp_path).why_none == f"{tmp_path / 'vqa'}: no prepared splits there"
    rows = SplitRows(run, "the demo is not made yet")
    assert (rows.splits, rows.why_none) == ((), "the demo is not made yet")
    with pytest.raises(DataError, match="the demo is not made yet"):
        rows.draw("test", 1)


def test_an_image_that_has_moved_is_named(served_runs, tmp_path):
    from tests.reports.made_runs import noisy_images, prepared_vqa

    data = prepared_vqa(tmp_path / "data", 3, noisy_images(tmp_path / "data" / "images", 1))
    (tmp_path / "data" / "images").rename(tmp_path / "elsewhere")
    (run,) = read_runs([str(served_runs / "one")], {}, no_check)
    with pytest.raises(
        DataError, match=r"000000\.jpg: no such image file; if the images have moved, give --images PATH"
    ):
        SplitRows(run, data).draw("test", 1)
    (run,) = read_runs([str(served_runs / "one")], {"data.image_dir": str(tmp_path / "elsewhere")}, no_check)
    assert SplitRows(run, data).draw("test", 1)[0].images[0].parent == tmp_path / "elsewhere"


def test_whatever_is_shown_is_text():
    evil = "<script>alert(1)</script>${7*7}{{7*7}}"
    for html in (views.error(evil), views.hint(evil), views.render("drawn", place=evil, references=evil)):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
    assert [views.percent(share) for share in (0.0, 0.0004, 0.5, 1.0)] == ["0.0 %", "< 0.1 %", "50.0 %", "100.0 %"]
