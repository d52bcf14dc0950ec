"""What tests of the pages share."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from mailer import operators


@pytest.fixture
def quick_hashes(monkeypatch):
    """Hashes that cost nothing; that real ones are argon2id is proved in tests/store."""
    monkeypatch.setattr(operators, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    operators._nobody.cache_clear()
    yield
    operators._nobody.cache_clear()
