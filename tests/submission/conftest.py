"""One running door for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.submission.process import DoorProcess, running


@pytest.fixture(scope="module")
def door(tmp_path_factory) -> Iterator[DoorProcess]:
    with running(tmp_path_factory.mktemp("door")) as started:
        yield started


@pytest.fixture
def client(door):
    with door.connect() as connected:
        yield connected
