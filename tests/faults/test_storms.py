"""The storms in small: `python3 make.py faults` raises all of them."""

from __future__ import annotations

import pytest

from tests.conftest import not_had
from tests.faults.storms import run
from tests.servers import Missing, redis_program


@pytest.mark.parametrize(("name", "messages"), [("worker-kill", 60), ("broker-wipe", 30)])
def test_storm_loses_nothing_and_doubles_nothing_silently(name, messages):
    """RT1, RT5: every accepted mail arrives or is shown; a second copy is the same bytes, and known."""
    try:
        redis_program()
    except Missing as missing:
        not_had(str(missing))
    outcome = run(name, "sqlite", messages)
    assert outcome.accepted == messages
    assert outcome.verdict == "holds"
