"""The same mails give the same bytes on every Python: their hashes are written down."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.corpus import assert_same, built, mails
from tests.reading import check_wire

GOLDEN = Path(__file__).with_name("golden_mails.txt")
"""A SHA-256 and a name a line. After a change that is meant: python -m tests.corpus > this file."""

MAILS = mails()


def test_the_bytes_are_those_that_were_written_down():
    """MF7: a worker of another Python, or of a later version, makes the same bytes in a further attempt."""
    written = {name: digest for digest, name in map(str.split, GOLDEN.read_text("ascii").splitlines())}
    now = {name: hashlib.sha256(built(name, asked)).hexdigest() for name, asked in MAILS.items()}
    assert len(now) == 300
    assert [name for name in now.keys() | written.keys() if now.get(name) != written.get(name)] == []


@pytest.mark.parametrize("name", MAILS)
def test_each_comes_back(name):
    """MF2, MF3, MF11, MF12: it keeps to the limits, and the standard library reads what was given."""
    data = built(name, MAILS[name])
    check_wire(data, foldable=False, lone_dots=name.startswith("attached_mails"))
    assert_same(MAILS[name], data)
