"""Sealing."""

from __future__ import annotations

import pytest

from mailer.errors import ConfigError
from mailer.sealing import HEAD, Sealer, signing_key

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_sealed_value_opens_for_its_own_message_only():
    """PD1: the message id is associated data, so a value moved to another row does not open."""
    sealed = Sealer([OLD]).seal(b"hello", "message-1")
    assert b"hello" not in sealed
    assert Sealer([OLD]).open(sealed, "message-1") == b"hello"
    with pytest.raises(ConfigError):
        Sealer([OLD]).open(sealed, "message-2")


def test_a_key_is_rotated_by_putting_a_new_one_in_front():
    """PD1: the key id says which key opens; the newest seals."""
    sealed = Sealer([OLD]).seal(b"x", "m")
    assert Sealer([NEW, OLD]).open(sealed, "m") == b"x"
    with pytest.raises(ConfigError, match="put it back"):
        Sealer([NEW]).open(sealed, "m")


@pytest.mark.parametrize("position", [0, 1, 6, 20, -1])
def test_an_altered_value_does_not_open(position):
    """PD1: authenticated encryption."""
    sealed = bytearray(Sealer([OLD]).seal(b"x" * 50, "m"))
    sealed[position] ^= 1
    with pytest.raises(ConfigError):
        Sealer([OLD]).open(bytes(sealed), "m")


def test_what_another_key_sealed_is_known_by_its_beginning():
    """PD1: resealing finds what is left under older keys without opening it."""
    old, both = Sealer([OLD]), Sealer([NEW, OLD])
    assert old.is_current(old.seal(b"x", "m"))
    assert not both.is_current(old.seal(b"x", "m"))
    assert both.is_current(both.seal(b"x", "m")[:HEAD])
    assert len({both.seal(b"x", "m")[:HEAD] for _ in range(100)}) == 100


def test_a_pseudonym_is_steady_while_newer_keys_come_in_front():
    """PD5: under the oldest key; another text or key gives another one."""
    name = Sealer([OLD]).pseudonym("ada@x.test")
    assert len(name) == 16
    assert Sealer([NEW, OLD]).pseudonym("ada@x.test") == name
    assert len({name, Sealer([OLD]).pseudonym("bob@x.test"), Sealer([NEW]).pseudonym("ada@x.test")}) == 3


def test_signing_keys_differ_by_purpose():
    """A cookie key says nothing about the key that seals content."""
    assert signing_key([OLD], "cookies") != signing_key([OLD], "links")
