"""Text tasks: what the model sees of a row, under both protocols, and what is declared about splits and labels."""

import gzip
import json

import numpy as np
import pytest

from data_prep.raw.text_columns import read_row
from dept_vl.errors import ConfigError, DataError
from dept_vl.tasks import TASKS, get_task
from dept_vl.tasks.examples import example_rows
from dept_vl.tasks.templates import pad_punctuation

TEXT_TASKS = [task for task in TASKS.values() if task.protocols]

RECORD_PASSAGE = (
    "The harbour of Ostrand closed on Monday. Mayor Ilse Brandt blamed the storm. Ferries to Kell will sail again on "
    "Friday"
)

INVENTED = {
    "mnli": ("premise: The ferry left an hour late. hypothesis: The ferry was on time.", "2"),
    "qqp": ("question1: How do I learn to sail? question2: What is the best way to learn sailing?", "1"),
    "qnli": ("question: When did the harbour close? sentence: The harbour of Ostrand closed on Monday.", "0"),
    "sst2": ("sentence: a slow film that never finds its harbour ", "0"),
    "stsb": ("sentence1: A man is boiling water. sentence2: A man boils water in a kettle.", "3.8"),
    "mrpc": (
        "sentence1: The storm closed the harbour on Monday , officials said . "
        "sentence2: Officials said the harbour was closed by the storm on Monday .",
        "1",
    ),
    "rte": (
        "sentence1: The harbour of Ostrand closed on Monday because of a storm. sentence2: A storm closed a harbour.",
        "0",
    ),
    "cola": ("sentence: The kettle was put on the stove by Mira.", "1"),
    "superglue-multirc": (
        "question: Who carried the kettle? answer: Her brother paragraph: Sent 1: Mira packed the red kettle before "
        "dawn. Sent 2: Her brother carried it to the boat. ",
        "1",
    ),
    "superglue-boolq": (
        "question: is a kettle made of metal passage: Kettle -- A kettle is a pot for boiling water, usually of metal, "
        "with a lid and a spout.",
        "1",
    ),
    "superglue-wic": (
        "sentence1: He sat on the bank of the river. sentence2: The bank closed at noon. word: bank",
        "0",
    ),
    "superglue-wsc": ("text: * The kettle * did not fit into the bag because # it # was too big.", "1"),
    "superglue-cb": (
        "premise: A: Will the boat sail? B: I don't think it will, no. hypothesis: the boat will sail",
        "1",
    ),
    "superglue-record": (
        "record query: Travellers must wait until Friday to reach @placeholder entities: Ostrand, Ilse Brandt, Kell "
        f"passage: {RECORD_PASSAGE}",
        "Kell",
    ),
    "nq": (
        "question: when was mira holm born context: Mira Holm (born 3 May 1951) is a boat builder from Ostrand.",
        "3 May 1951",
        "May 1951",
    ),
    "hotpotqa": (
        "question: Who is mayor of the town near the island Kell? context: [TLE] Kell [PAR] Kell is an island off "
        "Ostrand. [TLE] Ostrand [PAR] Ostrand's mayor is Ilse Brandt.",
        "Ilse Brandt",
    ),
    "searchqa": (
        "question: This pot whistles when its water boils context: [DOC] [TLE] Kettle - a pot with a spout [PAR] It "
        "whistles when water boils.",
        "kettle",
    ),
    "newsqa": (
        "question: Who said the harbour closed? context: (Ostrand) -- The harbour closed on Monday, Mayor Ilse Brandt "
        "said.",
        "Mayor Ilse Brandt",
        "Ilse Brandt",
    ),
    "squad": (
        "question: When was the ferry built? context: The Kell ferry was built in the U.S. in 1962.",
        "1962",
        "in 1962",
    ),
    "winogrande": (
        "sentence: Mira lent Ilse her boat because _ had no boat of her own. option0: Mira option1: Ilse",
        "1",
    ),
    "yelp-polarity": ("sentence: Friendly crew, strong tea. We will come back!", "1"),
    "scitail": (
        "premise: Water boils at 100 degrees at sea level. hypothesis: Water boils at a certain temperature.",
        "0",
    ),
    "paws": (
        "sentence1: The ferry sails from Ostrand to Kell . sentence2: The ferry sails from Kell to Ostrand .",
        "0",
    ),
}
"""Source text and targets of the first made-up row of every task, under ``fixed``."""

INVENTED_PAPER = {
    "nq": (
        "question: when was mira holm born context: Mira Holm ( born 3 May 1951 ) is a boat builder from Ostrand . ",
        "3 May 1951",
    ),
    "hotpotqa": (
        "question: Who is mayor of the town near the island Kell ?  context:  [ TLE ] Kell [ PAR ] Kell is an island "
        "off Ostrand . [ TLE ] Ostrand [ PAR ] Ostrand ' s mayor is Ilse Brandt . ",
        "Ilse Brandt",
    ),
    "searchqa": (
        "question: This pot whistles when its water boils context:  [ DOC ] [ TLE ] Kettle - a pot with a spout [ "
        "PAR ] It whistles when water boils . ",
        "kettle",
    ),
    "newsqa": (
        "question: Who said the harbour closed ?  context:  ( Ostrand ) - - The harbour closed on Monday , Mayor Ilse "
        "Brandt said . ",
        "Mayor Ilse Brandt",
    ),
    "squad": (
        "question: When was the ferry built ?  context: The Kell ferry was built in the U . S . in 1962 . ",
        " { ' text ' : [ ' 1962 ' , ' in 1962 ' ] , ' answer_start ' : [ 40 , 37 ] } ",
    ),
    "winogrande": (
        "sentence: Mira lent Ilse her boat because _ had no boat of her own. option0: Mira option1: Mira",
        "1",
    ),
}
"""The same under ``paper``, where it differs."""

REAL = {
    ("cola", "glue_cola/validation", 0): ("sentence: The sailors rode the breeze clear of the rocks.", "1"),
    ("sst2", "glue_sst2/validation", 0): ("sentence: it 's a charming and often affecting journey . ", "1"),
    ("mrpc", "glue_mrpc/validation", 0): (
        "sentence1: He said the foodservice pie business doesn't fit the company's long-term growth strategy. "
        'sentence2: "The foodservice pie business does not fit our long-term growth strategy.',
        "1",
    ),
    ("stsb", "glue_stsb/validation", 0): (
        "sentence1: a man with a hard hat is dancing . sentence2: a man wearing a hard hat is dancing .",
        "5.0",
    ),
    ("qnli", "glue_qnli/validation", 0): (
        "question: What came into force after the new constitution was herald? sentence: As of that day, the new "
        "constitution heralding the Second Republic came into force.",
        "0",
    ),
    ("superglue-boolq", "super_glue_boolq/validation", 2644): (
        "question: are they going to make a punisher season 2 passage: The Punisher (season 2) -- The season is set "
        "for release in 2019.",
        "1",
    ),
    ("superglue-cb", "super_glue_cb/validation", 0): (
        "premise: Valence the void-brain, Valence the virtuous valet. Why couldn't the figger choose his own portion "
        "of titanic anatomy to shaft? Did he think he was helping? hypothesis: Valence was helping",
        "1",
    ),
    ("superglue-wic", "super_glue_wic/validation", 0): (
        "sentence1: An emerging professional class. sentence2: Apologizing for losing your temper, even though you "
        "were badly provoked, showed real class. word: class",
        "0",
    ),
    ("superglue-wsc", "super_glue_wsc/validation", 0): (
        "text: Bernard , who had not told the government official that he was less than 21 when he filed for a "
        "homestead claim, did not consider that he had done anything dishonest. Still, * anyone * who knew that he "
        "was 19 years old could take his claim away from # him # .",
        "0",
    ),
    ("winogrande", "winogrande/validation", 0): (
        "sentence: Sarah was a much better surgeon than Maria so _ always got the easier cases. option0: Sarah "
        "option1: Maria",
        "1",
    ),
    ("yelp-polarity", "yelp_polarity/test", 422): ("sentence: super yummy bakery ! !", "1"),
}
"""Source text and targets of a real row, under ``fixed``."""


def render(name, row, protocol):
    """Returns (source, target, ...) of each example a raw row makes."""
    task = get_task(name)
    return [(e.source, *e.targets) for e in task.render(read_row(row, task.columns)) if e.protocol == protocol]


def read_real(shared_data, path):
    with gzip.open(shared_data / "nlp" / "hf" / f"{path}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("name", [task.name for task in TEXT_TASKS])
def test_source_and_targets_of_a_made_up_row(name):
    row = example_rows(name)[0]
    assert render(name, row, "fixed") == [INVENTED[name]]
    assert render(name, row, "paper") == [INVENTED_PAPER.get(name, INVENTED[name])]


def assert_renders(name, row, source, target):
    assert render(name, row, "fixed") == [(source, target)]
    paper = source.replace("option1: Maria", "option1: Sarah")
    assert render(name, row, "paper") == [(paper, target)]


@pytest.mark.parametrize("name", ["qnli", "superglue-boolq", "superglue-wsc", "winogrande"])
def test_source_and_targets_of_a_real_row(excerpt, name):
    ((expected,),) = [[text for (task, _, _), text in REAL.items() if task == name]]
    assert_renders(name, json.loads((excerpt / "text" / "rows.json").read_text())[name][0], *expected)


def test_source_and_targets_of_real_rows_of_every_task(shared_data):
    for (name, path, index), expected in REAL.items():
        assert_renders(name, read_real(shared_data, path)[index], *expected)


def test_source_and_targets_of_a_real_multirc_row(shared_data):
    row = read_real(shared_data, "super_glue_multirc/validation")[2147]
    ((source, target),) = render("superglue-multirc", row, "paper")
    assert source.startswith("question: How many people did Susan call? answer: 5 paragraph: Susan wanted to have a ")
    assert source.endswith("Susan was happy and sent each friend a thank you card the next week. ")
    assert target == "1"
    assert render("superglue-multirc", row, "fixed") == [(source, target)]


def test_source_and_targets_of_real_rows_of_nli(shared_data):
    with gzip.open(shared_data / "nlp" / "raw" / "advglue" / "dev.json.gz", "rt", encoding="utf-8") as file:
        rows = {name: rows[0] for name, rows in json.load(file).items()}
    mnli = "hypothesis: The simplest is for one million dollars to be donated by one of the agents to the IGGS "
    assert mnli in render("mnli", rows["mnli-mm"], "fixed")[0][0]
    question1 = "question1: Can eating precisely advance for dinner lead to weight loss ? "
    question2 = "question2: Does eating dinner earlier in the evening help with weight loss ?"
    assert render("qqp", rows["qqp"], "paper") == [(question1 + question2, "0")]
    ((source, target),) = render("rte", rows["rte"], "fixed")
    assert source.startswith("sentence1: The universal doctrinal courtesy initiation , ")
    assert source.endswith(" sentence2: Doctors Without Borders is an international aid organization .")
    assert target == "0"


def test_source_and_targets_of_a_real_newsqa_row(shared_data):
    with gzip.open(shared_data / "nlp" / "raw" / "mrqa" / "NewsQA_sample.jsonl.gz", "rt", encoding="utf-8") as file:
        content = json.loads(next(file))
    question = content["qas"][1]
    row = {"context": content["context"], "question": question["question"], "answers": question["answers"]}
    ((source, *targets),) = render("newsqa", row, "fixed")
    assert source.startswith("question: What does the Harrison Ford video feature? context: (CNN) -- What could be ")
    assert targets == ["getting his chest waxed,"]
    ((source, *targets),) = render("newsqa", row, "paper")
    assert source.startswith("question: What does the Harrison Ford video feature ?  context:  ( CNN ) - - What could ")
    assert targets == ["getting his chest waxed , "]


def test_record_makes_a_row_a_question_or_a_row_an_answer():
    row = example_rows("superglue-record")[1]
    ((source, *targets),) = render("superglue-record", row, "fixed")
    assert targets == ["Ilse Brandt", "Mayor Ilse Brandt"]
    assert render("superglue-record", row, "paper") == [(source, "Ilse Brandt"), (source, "Mayor Ilse Brandt")]
    unanswered = {**row, "answers": []}
    assert render("superglue-record", unanswered, "paper") == [(source, "<unk>")]
    assert render("superglue-record", unanswered, "fixed") == [(source,)]


def count_unmarked(rows):
    """Counts the rows of WSC of which a span is not marked, by protocol."""
    unmarked = {"fixed": 0, "paper": 0}
    for row in rows:
        for protocol in unmarked:
            ((source, _),) = render("superglue-wsc", row, protocol)
            unmarked[protocol] += not ("*" in source and "#" in source)
    return unmarked


def test_wsc_marks_a_span_whose_case_differs_under_fixed_only(excerpt):
    rows = json.loads((excerpt / "text" / "rows.json").read_text())["superglue-wsc"]
    assert count_unmarked(rows) == {"fixed": 0, "paper": 10}


def test_wsc_leaves_a_span_with_a_line_break_unmarked():
    """Two real rows have one; ``fixed`` is no better than ``paper`` there."""
    row = {**example_rows("superglue-wsc")[0], "span1_text": "The\nkettle"}
    assert count_unmarked([row]) == {"fixed": 1, "paper": 1}


def test_wsc_marks_spans_of_all_real_rows(shared_data):
    assert count_unmarked(read_real(shared_data, "super_glue_wsc/train")) == {"fixed": 2, "paper": 88}


def test_similarity_is_rounded_as_t5_and_as_the_released_code_do(excerpt):
    labels = set(json.loads((excerpt / "text" / "stsb_labels.json").read_text()))
    assert len(labels) > 100
    task = get_task("stsb")
    for label in sorted(labels | {twentieth / 20 for twentieth in range(101)}):
        single = np.float32(label)  # what the hub holds
        (fixed,) = task.under("fixed").variant.golds({"label": label})
        assert fixed.targets == (f"{np.round(single * np.float32(5)) / 5:.1f}",)
        assert fixed.targets[0] in task.under("fixed").labels
        (paper,) = task.under("paper").variant.golds({"label": label})
        assert paper.targets == (str(np.round(float(single) * 5 / 5, decimals=1)),)
        assert paper.targets[0] in task.under("paper").labels


@pytest.mark.parametrize(("label", "fixed", "paper"), [(2.7, "2.8", "2.7"), (3.3, "3.2", "3.3"), (2.5, "2.4", "2.5")])
def test_similarity_of_the_cases_the_protocols_differ_in(label, fixed, paper):
    task = get_task("stsb")
    assert task.under("fixed").variant.golds({"label": label})[0].targets == (fixed,)
    assert task.under("paper").variant.golds({"label": label})[0].targets == (paper,)


def test_punctuation_is_padded_as_released():
    assert pad_punctuation("Who's in_the U.S.?\nÀ bientôt, François…") == (
        "Who ' s in_the U . S .  ? À bientôt , François … ".replace("  ", " ")
    )


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("cola", {"label": "2"}, "'label' should be one of 0, 1, found '2'"),
        ("winogrande", {"answer": ""}, "'answer' should be one of 1, 2, found ''"),
        ("scitail", {"gold_label": "contradiction"}, "one of entailment, neutral, found 'contradiction'"),
        ("stsb", {"label": "5.2"}, "'label' should lie between 0 and 5, found 5.2"),
    ],
)
def test_a_label_outside_the_label_set_is_refused(name, row, message):
    with pytest.raises(DataError, match=message):
        get_task(name).under("fixed").variant.golds(row)


def test_label_sets():
    sets = {task.name: task.under("fixed").labels for task in TEXT_TASKS}
    assert sets["sst2"] == ("0", "1")
    assert sets["mnli"] == sets["superglue-cb"] == ("0", "1", "2")
    assert len(sets["stsb"]) == 26
    assert sets["stsb"][:3] == ("0.0", "0.2", "0.4")
    assert get_task("stsb").under("paper").labels[-2:] == ("4.9", "5.0")
    without = {name for name, labels in sets.items() if labels is None}
    assert without == {"superglue-record", "nq", "hotpotqa", "searchqa", "newsqa", "squad"}
    assert get_task("vqa").labels is None


TABLE_9 = {
    "mnli": (392_702, 9_832, 9_815), "qqp": (362_846, 1_000, 40_430), "qnli": (103_743, 1_000, 5_463),
    "sst2": (66_349, 1_000, 872), "stsb": (5_749, 750, 750), "mrpc": (3_668, 204, 204), "rte": (2_490, 138, 139),
    "cola": (8_551, 521, 522), "superglue-multirc": (27_243, 2_424, 2_424), "superglue-boolq": (9_427, 1_635, 1_635),
    "superglue-wic": (5_428, 319, 319), "superglue-wsc": (554, 52, 52), "superglue-cb": (250, 28, 28),
    "superglue-record": (137_484, 1_370, 15_176), "nq": (103_071, 1_000, 12_836), "hotpotqa": (71_928, 1_000, 5_901),
    "searchqa": (116_384, 1_000, 16_980), "newsqa": (73_160, 1_000, 4_212), "winogrande": (39_398, 1_000, 1_267),
    "yelp-polarity": (100_000, 1_000, 38_000), "scitail": (23_596, 652, 652), "paws": (49_401, 8_000, 8_000),
}  # fmt: skip
"""Train, validation and test rows; QQP's test is printed as 40,431, see ``dept_vl/tasks/glue.py``."""


@pytest.mark.parametrize("name", list(TABLE_9))
def test_split_sizes_under_paper_are_table_9s(name):
    sizes = get_task(name).under("paper").split_sizes
    assert tuple(size.rows for size in sizes.values()) == TABLE_9[name]


@pytest.mark.parametrize("task", TEXT_TASKS, ids=lambda task: task.name)
def test_split_sizes_follow_from_the_hub_splits(task):
    for protocol in task.protocols:
        variant, rows = task.under(protocol).variant, task.source.rows
        if variant.splits["val"].by_group or (task.name, protocol) == ("superglue-record", "paper"):
            continue  # these depend on the rows; MultiRC is derived from the real ones in tests/data_prep
        for split, rule in variant.splits.items():
            count = rows[rule.hub_split]
            cut = count // 2 if rule.cut is None else rule.cut
            expected = {"all": count, "first": cut, "rest": count - cut}[rule.part]
            assert variant.split_sizes[split].rows == min(expected, rule.limit or expected)


def test_the_checkpoint_is_picked_as_the_paper_prints_or_as_the_code_does():
    assert get_task("mrpc").under("paper").selection_metric == "accuracy"
    assert get_task("superglue-cb").under("fixed").selection_metric == "accuracy"
    assert get_task("superglue-cb").under("paper").selection_metric == "f1_macro"
    assert get_task("nq").under("fixed").selection_metric == "squad_f1"
    assert get_task("nq").under("paper").selection_metric == "squad_em"
    assert get_task("vqa").selection_metric == "vqa_accuracy"


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ConfigError, match="task 'cola' has no protocol 'papre'; expected fixed or paper"):
        get_task("cola").under("papre")
    with pytest.raises(ConfigError, match="task 'vqa' has no protocol 'paper'; it has none"):
        get_task("vqa").check_protocol("paper")
    with pytest.raises(ConfigError, match="task 'cola' needs one of fixed, paper"):
        get_task("cola").check_protocol(None)


def test_three_rows_are_made_up_for_every_task():
    for task in TASKS.values():
        assert [len(task.render(row)) >= len(task.protocols) for row in example_rows(task.name)] == [True] * 3
