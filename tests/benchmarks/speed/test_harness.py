"""Turns, ratios within rounds, and floors."""

import json

import pytest

from benchmarks.speed.competition import mix
from benchmarks.speed.harness import Contestant, Floor, Result, run_rounds
from benchmarks.speed.table import format_result, to_json


def test_who_starts_moves_on_by_one_every_round():
    order = []
    contestants = [Contestant(name, lambda name=name: order.append(name) or {"rate": 1.0}) for name in "abc"]
    rounds = run_rounds(contestants, 4)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert [list(one) for one in rounds] == [["a", "b", "c"]] * 4


def drifting() -> Result:
    """A machine that halves its speed every round: ours is always twice the peer's."""
    rounds = [{"ours": {"rate": 8.0 / 2**n, "peak_gib": 1.0}, "peer": {"rate": 4.0 / 2**n}} for n in range(3)]
    floors = [
        Floor("twice", "ours", "peer", 2.0),
        Floor("thrice", "ours", "peer", 3.0),
        Floor("memory", "ours", None, 1.5, "peak_gib", "at most"),
        Floor("absent", "ours", "nobody", 1.0),
    ]
    return Result("drift", "samples", rounds, floors, ["a note"])


def test_ratios_are_taken_within_each_round():
    spread = drifting().ratio("ours", "peer")
    assert (spread.median, spread.least, spread.most) == (2.0, 2.0, 2.0)
    assert drifting().spread("ours").median == 4.0


def test_floors_are_met_or_not_and_absent_peers_are_left_out():
    assert [(one.floor.what, one.is_met) for one in drifting().floor_results()] == [
        ("twice", True), ("thrice", False), ("memory", True)
    ]  # fmt: skip


def test_the_table_says_what_was_wanted_and_found():
    text = format_result(drifting())
    assert "at least 3" in text
    assert text.count("NOT MET") == 1
    assert "- a note" in text
    assert "torch" in text.splitlines()[-1]


def test_the_json_holds_every_round_and_the_environment():
    content = json.loads(json.dumps(to_json(drifting())))
    assert len(content["rounds"]) == 3
    assert content["medians"]["ours"]["rate"] == 4.0
    assert content["floors"][1] == {
        "what": "thrice", "ours": "ours", "peer": "peer", "bound": 3.0, "key": "rate", "kind": "at least",
        "ratio": {"median": 2.0, "least": 2.0, "most": 2.0}, "is_met": False,
    }  # fmt: skip
    assert content["environment"]["cores"] >= 1


@pytest.mark.parametrize("rounds", [[], [{"peer": {"rate": 1.0}}]])
def test_a_value_nobody_measured_has_no_spread(rounds):
    assert Result("none", "samples", rounds).spread("ours") is None


def test_a_mixture_adds_up_the_times_of_its_rows_and_takes_the_largest_memory():
    rounds = {
        "short": [{"ours": {"rate": 10.0, "peak_gib": 1.0}, "peer": {"rate": 2.0}}],
        "long": [{"ours": {"rate": 5.0, "peak_gib": 3.0}, "peer": {"rate": 2.0}}],
    }
    (mixed,) = mix(rounds, {"short": 30, "long": 10})  # ours: 3 s and 2 s; the peer: 15 s and 5 s
    assert mixed == {"ours": {"rate": 8.0, "peak_gib": 3.0}, "peer": {"rate": 2.0}}
