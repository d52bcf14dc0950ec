"""`Secret`: a value that travels sealed and is masked wherever people look."""

from __future__ import annotations

from typing import Any, NoReturn

from mailer.errors import SecretErased

MASK = "••••••"


class Secret:
    """Wraps a text that must not be read in the store, the broker, a log or the console.

    Templates get the value, everything else gets the mask. It is erased when the message ends::

        send_email.delay("login_code", to=…, context={"code": Secret("493 201")})

    Two secrets are equal if their values are. ``json.dumps`` and ``pickle`` refuse one with TypeError, so
    that it does not leave the process by accident; a copy of a structure shares it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"Secret takes text (str), not {type(value).__name__}")
        self._value = value

    def reveal(self) -> str:
        """The value itself. Raises SecretErased if it was erased."""
        return self._value

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._value == other._value

    def __hash__(self) -> int:
        return hash((type(self), self._value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: it would leave the process in clear")


class ErasedSecret(Secret):
    """Stands where a secret was before its message ended."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("")

    def reveal(self) -> NoReturn:
        raise SecretErased("the message carried a secret that was erased when it ended")
