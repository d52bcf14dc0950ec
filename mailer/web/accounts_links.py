"""Links in account mails: minted in the worker when the mail is rendered, stored nowhere.

A token is ``id.time.signature`` (HMAC-SHA256). The purpose and a nonce of the person's row are part of the
key, so a verify link resets nothing, and whoever changes the nonce voids every link made before (AU3-AU6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

import flask
import itsdangerous

from mailer.errors import RenderError
from mailer.links import Links
from mailer.sealing import signing_key
from mailer.secret import Secret
from mailer.services import Services
from mailer.store import accounts as rows
from mailer.store.accounts import Redeemable

MAX_TOKEN = 200


class Purpose(StrEnum):
    """What a link is for, and its path."""

    VERIFY = "verify"
    RESET = "reset"


LIFETIME = {Purpose.VERIFY: timedelta(hours=24), Purpose.RESET: timedelta(hours=1)}
ASKED_FOR_AT = {Purpose.VERIFY: "/verify/again", Purpose.RESET: "/forgot"}
IN_WORDS = {Purpose.VERIFY: "24 hours", Purpose.RESET: "1 hour"}


class AccountTokens:
    """Makes and reads tokens under the configured keys, the newest first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        # itsdangerous signs with the last key and reads with all, so that a key can be rotated.
        self._keys = [signing_key([key], "account links") for key in reversed(keys)]

    def make(self, purpose: Purpose, person: Redeemable) -> str:
        """A token that this person can use once, until the nonce in the row changes."""
        return self._signer(purpose, person).sign(person.id).decode()

    def holds(self, purpose: Purpose, token: str, person: Redeemable) -> bool:
        """Whether the token is genuine, in time, and of the row's present nonce."""
        try:
            self._signer(purpose, person).unsign(token, max_age=round(LIFETIME[purpose].total_seconds()))
        except itsdangerous.BadData:
            return False
        return True

    def sign_device(self, id_: str) -> str:
        """For a cookie: a browser in which this person has been before."""
        return self._device_signer().sign(id_).decode()

    def read_device(self, cookie: str) -> str | None:
        """Who has been in this browser before, or None."""
        try:
            return self._device_signer().unsign(cookie[:MAX_TOKEN]).decode()
        except itsdangerous.BadData:
            return None

    def _device_signer(self) -> itsdangerous.Signer:
        return itsdangerous.Signer(self._keys, salt="mailer device", digest_method=hashlib.sha256)

    def _signer(self, purpose: Purpose, person: Redeemable) -> itsdangerous.TimestampSigner:
        nonce = person.verify_nonce if purpose is Purpose.VERIFY else person.reset_nonce
        salt = f"mailer {purpose} {nonce}"
        return itsdangerous.TimestampSigner(self._keys, salt=salt, digest_method=hashlib.sha256)


def id_in(token: str) -> str:
    """Whose token this claims to be; believe it only after `AccountTokens.holds`."""
    return token[:MAX_TOKEN].partition(".")[0]


def provide_links(mailer: Any, tokens: AccountTokens) -> None:
    """Register the context providers that mint the links of ``verify_email`` and ``reset_password``."""

    def verify_link(context: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"link": _link(tokens, Purpose.VERIFY, context)}

    def reset_link(context: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"link": _link(tokens, Purpose.RESET, context)}

    mailer.context_provider("verify_email", provides=("link",))(verify_link)
    mailer.context_provider("reset_password", provides=("link",))(reset_link)


def _link(tokens: AccountTokens, purpose: Purpose, context: Mapping[str, Any]) -> Secret:
    services: Services = flask.current_app.extensions["mailer"]
    links = Links(services.settings.base_url)
    if "user_id" not in context:
        # Sent by hand, from a shell: nobody's link, so the page where people get one of their own.
        return Secret(str(context.get("link") or links.absolute_url(ASKED_FOR_AT[purpose])))
    with services.store.read() as connection:
        person = rows.redeemable(connection, str(context.get("user_id", "")))
    if person is None:
        raise RenderError("the account is gone or disabled")
    return Secret(links.absolute_url(f"/{purpose}", token=tokens.make(purpose, person)))
