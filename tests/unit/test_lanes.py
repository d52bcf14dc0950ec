"""Lanes: weights, shares, and how they are written."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.lanes import LANES, Lane, Turns

NAMES = [lane.name for lane in LANES]


def test_lanes_that_wait_are_served_by_weight():
    """RT11: of 130 turns the lanes get 80, 40 and 10, as 8 to 4 to 1, and none waits for long."""
    turns, order = Turns(LANES, 1), []
    for _ in range(130):
        order.append(turns.take(NAMES))
        turns.give_back(order[-1])
    assert Counter(order) == {"critical": 80, "default": 40, "bulk": 10}
    assert "bulk" in order[:13]


def test_a_lane_that_was_idle_has_saved_nothing_up():
    """Weights are shares of now: after an hour without bulk, bulk does not get an hour of turns."""
    turns = Turns(LANES, 1)
    for _ in range(1000):
        turns.give_back(turns.take(["critical"]))
    order = []
    for _ in range(13):
        order.append(turns.take(["critical", "bulk"]))
        turns.give_back(order[-1])
    assert order.count("bulk") in (1, 2)


@pytest.mark.parametrize(
    ("at_once", "limits"), [(1, [1, 1, 1]), (2, [2, 1, 1]), (4, [4, 3, 2]), (8, [8, 6, 4])]
)
def test_each_lane_may_hold_its_share(at_once, limits):
    """RT11: a lane that waits alone gets its share of a worker, and no more."""
    for name, limit in zip(NAMES, limits, strict=True):
        turns = Turns(LANES, at_once)
        held = [turns.take([name]) for _ in range(at_once + 2)]
        assert held == [name] * limit + [None] * (at_once + 2 - limit)


def test_there_is_always_a_place_for_what_is_urgent():
    """RT11: however much bulk and default have in hand, critical finds a place."""
    turns = Turns(LANES, 4)
    while turns.take(["default", "bulk"]):
        pass
    assert turns.take(["critical", "default", "bulk"]) == "critical"


@given(st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from(NAMES)))), st.integers(1, 9))
def test_shares_hold_whatever_comes_and_goes(steps, at_once):
    """No order of beginnings and ends takes a lane, and those after it, over its share."""
    turns, held = Turns(LANES, at_once), []
    for begins, waiting in steps:
        if begins or not held:
            if name := turns.take(waiting):
                assert name in waiting
                held.append(name)
        else:
            turns.give_back(held.pop(0))
        for n, lane in enumerate(LANES):
            together = sum(held.count(later.name) for later in LANES[n:])
            assert together <= max(1, at_once * lane.share // 100)


@pytest.mark.parametrize(
    ("written", "lane"),
    [
        ("bulk", Lane("bulk", 1, 50)),
        ("critical", Lane("critical", 8, 100)),
        ("reports", Lane("reports", 1, 100)),
        ("reports:3", Lane("reports", 3, 100)),
        (" reports : 3 : 20 ", Lane("reports", 3, 20)),
    ],
)
def test_how_a_lane_is_written(written, lane):
    """Weight and share may be left out; the lanes that are there from the start keep theirs."""
    assert Lane.parse(written) == lane
    assert Lane.parse(str(lane)) == lane
