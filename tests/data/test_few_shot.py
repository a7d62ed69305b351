from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from dept_vl.data.few_shot import FewShot, choose_rows
from dept_vl.errors import ConfigError
from dept_vl.tasks import TASKS


def labels(num_rows: int, names: str, seed: int = 0) -> list[str]:
    return [str(label) for label in np.random.default_rng(seed).choice(list(names), size=num_rows)]


def released_sampler(classes: list[str], names: str, k: int, seed: int) -> list[int]:
    """What ``train.py --k_shot_example`` chooses, on the shuffle of `datasets` itself and with its loop's own tests."""
    shuffled = Dataset.from_dict({"row": list(range(len(classes))), "target": classes}).shuffle(seed=seed)
    counts = dict.fromkeys(names, 0)
    chosen = []
    for data in shuffled:
        if sum(counts.values()) == k:
            break
        if counts[data["target"]] < k // len(counts) or sum(counts.values()) == k - 1:
            counts[data["target"]] += 1
            chosen.append(data["row"])
    return chosen


@pytest.mark.parametrize("names", ["01", "012"])
@pytest.mark.parametrize("k", [4, 16, 32])
@pytest.mark.parametrize("seed", [0, 1, 42])
def test_released_rule_is_the_released_sampler_to_the_letter(names, k, seed):
    classes = labels(300, names, seed=seed + 7)
    chosen = choose_rows(FewShot(k, "released", seed), 300, classes, names)
    assert chosen.tolist() == released_sampler(classes, names, k, seed)


def test_released_rule_gives_30_of_32_over_three_classes_and_an_extra_of_any_class_over_two():
    three = labels(300, "012")
    rows = choose_rows(FewShot(32, "released", 0), 300, three, "012")
    assert Counter(three[row] for row in rows) == {"0": 10, "1": 10, "2": 10}
    two = ["0"] * 90 + ["1"] * 10
    counts = [Counter(two[row] for row in choose_rows(FewShot(4, "released", s), 100, two, "01")) for s in range(9)]
    assert {"0": 3, "1": 1} in counts


@pytest.mark.parametrize("k", [4, 16, 32])
def test_balanced_rule_spreads_the_remainder_over_the_first_classes(k):
    classes = labels(300, "012")
    counts = Counter(classes[row] for row in choose_rows(FewShot(k, "balanced", 3), 300, classes, "012"))
    assert sorted(counts.values()) == sorted(k // 3 + (place < k % 3) for place in range(3))


def test_the_remainder_goes_to_other_classes_with_other_seeds():
    classes = labels(300, "012")
    extra = set()
    for seed in range(12):
        rows = choose_rows(FewShot(4, "balanced", seed), 300, classes, "012")
        extra.add(Counter(classes[row] for row in rows).most_common(1)[0][0])
    assert extra == {"0", "1", "2"}


@pytest.mark.parametrize("rule", ["balanced", "released"])
def test_the_same_seed_chooses_the_same_rows_and_another_seed_others(rule):
    classes = labels(300, "01")
    first, again, other = (choose_rows(FewShot(16, rule, s), 300, classes, "01").tolist() for s in (0, 0, 1))
    assert first == again
    assert first != other
    assert len(set(first)) == 16


def test_without_a_label_set_rows_are_a_plain_seeded_sample():
    rows = choose_rows(FewShot(16, "balanced", 0), 50, None)
    assert len(set(rows.tolist())) == 16
    assert rows.max() < 50
    with pytest.raises(ConfigError, match="no label set in task 'nq'; use 'balanced'"):
        choose_rows(FewShot(16, "released", 0), 50, None, where=" in task 'nq'")
    with pytest.raises(ConfigError, match="51 is more than the 50 rows"):
        choose_rows(FewShot(51, "balanced", 0), 50, None)


@pytest.mark.parametrize("rule", ["balanced", "released"])
def test_k_larger_than_a_class_names_class_and_count(rule):
    classes = ["0"] * 50 + ["1"] * 7
    with pytest.raises(ConfigError, match=r"16 over 2 classes takes 8 rows of a class.*class '1' has 7 rows"):
        choose_rows(FewShot(16, rule, 0), 57, classes, "01")


def test_a_k_that_is_no_row_of_any_class_is_refused():
    with pytest.raises(ConfigError, match="2 over 3 classes gives no row of any"):
        choose_rows(FewShot(2, "released", 0), 300, labels(300, "012"), "012")


def test_a_label_outside_the_classes_is_refused():
    with pytest.raises(ConfigError, match="class '2' is not among 0, 1"):
        choose_rows(FewShot(4, "balanced", 0), 300, labels(300, "012"), "01")


def test_similarities_are_two_classes_cut_at_two_and_a_half():
    stsb = TASKS["stsb"]
    assert [stsb.few_shot_class(target) for target in ("0.0", "2.5", "2.6", "5.0")] == ["0", "0", "1", "1"]
    assert stsb.few_shot_classes == ("0", "1")
