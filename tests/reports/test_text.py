from dept_vl.models.parameter_budget import ParameterBudget
from dept_vl.reports.text import format_budget, format_metrics, format_score


def test_caption_scores_are_printed_times_100_and_say_so():
    assert format_score("CIDEr", 1.1374) == ("113.7", "x 100, as papers print it")


def test_vqa_accuracy_is_already_in_percent():
    assert format_score("vqa_accuracy/yes/no", 59.84) == ("59.8", "of 100")


def test_question_types_are_shown_on_request_only():
    metrics = {"vqa_accuracy": 50.0, "vqa_accuracy/question_type/what is": 10.0}
    assert "what is" not in format_metrics(metrics)
    assert "what is" in format_metrics(metrics, question_types=True)


def test_budget_names_groups_share_and_shape():
    budget = ParameterBudget(
        {"soft_prompt": 46_080, "lowrank": 30_720, "visual_projection": 1_573_632},
        222_903_552,
        224_553_984,
        {"m": 60, "r": 30, "s": 256, "d": 768, "l": 100},
    )
    text = format_budget(budget)
    assert "1,650,432  0.73 % of all 224,553,984; the backbone has 222,903,552\n" in text
    assert "Table 3" not in text
    assert "m = 60, r = 30, s = 256, d = 768, l = 100" in text


def test_a_row_of_table_3_says_how_the_table_counts():
    groups = {"soft_prompt": 76_800, "visual_projection": 1_581_312}
    ours = ParameterBudget(groups, 222_903_552, 224_561_664, {})
    theirs = ParameterBudget(groups, 222_958_848, 224_616_960, {})
    lines = format_budget(ours, theirs).splitlines()
    expected = "as Table 3 counts 1,658,112 0.74 % of all 224,616,960, whose T5 has the vocabulary of Sung et al."
    assert " ".join(lines[-2].split()) == expected


def test_a_pair_that_misses_the_budget_says_by_how_much():
    """The released MultiRC run: 60 x 768 + (348 + 768) x 30, where the paper counts 76,800."""
    facts = {"m": 60, "r": 30, "s": 348, "d": 768, "l": 100, "l x d": 76_800}
    budget = ParameterBudget({"soft_prompt": 46_080, "lowrank": 33_480}, 222_903_552, 222_983_112, facts)
    assert "trains 79,560 parameters, 2,760 more than l x d, which the paper counts" in format_budget(budget)
    exact = ParameterBudget({"soft_prompt": 46_080, "lowrank": 30_720}, 222_903_552, 222_980_352, facts)
    assert format_budget(exact).endswith("trains 76,800 parameters")
