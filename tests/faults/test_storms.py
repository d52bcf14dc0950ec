"""The storms in small: `python3 make.py faults` raises all of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.conftest import not_had
from tests.faults.ground import Sink
from tests.faults.storms import judge, run
from tests.peer import Copy
from tests.servers import Missing, redis_program

SMALL = [
    ("worker-kill", "sqlite", 60),
    ("broker-wipe", "sqlite", 30),
    ("caller-points", "sqlite", 1),
    ("caller-points", "postgres", 1),
    ("worker-points", "sqlite", 1),
]


@pytest.mark.parametrize(("name", "store", "messages"), SMALL)
def test_storm_loses_nothing_and_doubles_nothing_silently(name, store, messages):
    """RT1, RT5: every accepted mail arrives or is shown; a second copy is the same bytes, and known."""
    try:
        redis_program()
    except Missing as missing:
        not_had(str(missing))
    outcome = run(name, store, messages)
    assert outcome.accepted == messages or name.endswith("-points")
    assert outcome.verdict == "holds"


def left(copies: list[bytes], *, state="sent", policy="retry", unknowns=0, windows=9) -> SimpleNamespace:
    """What a storm over one mail left behind."""
    sink = Sink(port=0)
    for data in copies:
        sink._keep(Copy("<1@x.test>", "me@x.test", ("a@x.test",), data))
    row = SimpleNamespace(state=state, on_uncertain=policy, unknowns=unknowns)
    return SimpleNamespace(
        rows=lambda: {"a@x.test": row},
        sink=sink,
        accepted={"a@x.test": 0.0},
        due={},
        windows=windows,
        problems=[],
        store="sqlite",
        overdue=0.0,
        slowest_call=0.0,
    )


@pytest.mark.parametrize(
    ("ground", "problem"),
    [
        (left([b"1"]), ""),
        (left([], state="uncertain"), ""),
        (left([b"1", b"1"], unknowns=1), ""),
        (left([]), "1 lost"),
        (left([b"1"], state="failed"), "not all mails are sent or uncertain"),
        (left([b"1", b"1"], unknowns=1, policy="hold"), "doubled under hold"),
        (left([b"1", b"2"], unknowns=1), "doubled with other bytes"),
        (left([b"1", b"1"]), "doubled without the store knowing that it may be"),
        (left([b"1", b"1"], unknowns=1, windows=0), "1 copies too many, 0 can be excused"),
    ],
)
def test_verdict_names_the_broken_promise(ground, problem):
    """A storm that could not fail would prove nothing."""
    assert "; ".join(judge(ground, "some", 1.0).problems) == problem
