"""Whatever a server does, it does with and without PIPELINING."""

from __future__ import annotations

import pytest

from tests import peer


@pytest.fixture(params=["one-by-one", "pipelined"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Scripts that name no extensions offer PIPELINING in every second run."""
    if request.param == "pipelined":
        monkeypatch.setattr(peer, "OFFERED", [*peer.OFFERED, "PIPELINING"])
    return str(request.param)
