"""Sealing."""

from __future__ import annotations

import pytest

from mailer.errors import ConfigError
from mailer.sealing import Sealer, signing_key

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


def test_signing_keys_differ_by_purpose():
    """A cookie key says nothing about the key that seals content."""
    assert signing_key([OLD], "cookies") != signing_key([OLD], "links")
