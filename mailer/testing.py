"""For the tests of applications that use Mailer: an ``outbox`` fixture and the assertions people expect.

The plugin is loaded by pytest as soon as Mailer is installed. The fixture needs one called ``app`` that
answers the Flask application, as pytest-flask's does::

    def test_reset_sends_a_link(client, outbox):
        client.post("/forgot", data={"email": "ada@example.com"})
        mail = outbox.assert_one_mail(to="ada@example.com", template="reset_password")
        assert client.get(mail.link).status_code == 200

Everything but the broker and the network is real: the commit hook, the row, the id as JSON, the context
provider, rendering and MIME. A mail is there as soon as the transaction it was asked for in commits.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import flask

_URL = re.compile(r"https?://[^\s<>\"')\]]+")


@dataclass(frozen=True)
class SentMail:
    """One mail as it would have gone out, to its envelope recipients."""

    id: str
    template: str | None
    sender: str
    recipients: tuple[str, ...]
    data: bytes

    @cached_property
    def message(self) -> EmailMessage:
        """The mail, parsed by the standard library."""
        parsed = email.message_from_bytes(self.data, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    @property
    def subject(self) -> str:
        return str(self.message["subject"])

    @property
    def text(self) -> str:
        """The text part, "" if there is none."""
        return self._body("plain")

    @property
    def html(self) -> str:
        """The HTML part, "" if there is none."""
        return self._body("html")

    @property
    def links(self) -> list[str]:
        """Every http(s) URL of the text part, in order."""
        return [url.rstrip(".,;") for url in _URL.findall(self.text)]

    @property
    def link(self) -> str:
        """The only link, or the first of several. Fails if there is none."""
        assert self.links, f"the mail {self.subject!r} has no link in its text part"
        return self.links[0]

    @property
    def attachments(self) -> dict[str, bytes]:
        """Attached files by name."""
        return {
            part.get_filename() or "": part.get_payload(decode=True)  # type: ignore[misc]
            for part in self.message.iter_attachments()
        }

    def _body(self, subtype: str) -> str:
        part = self.message.get_body((subtype,))
        return "" if part is None else str(part.get_content())


class Outbox:
    """The mails an application sent during a test, oldest first."""

    def __init__(self) -> None:
        self.mails: list[SentMail] = []

    def __len__(self) -> int:
        return len(self.mails)

    def __iter__(self) -> Iterator[SentMail]:
        return iter(self.mails)

    def clear(self) -> None:
        """Forget what was sent so far."""
        self.mails.clear()

    def matching(self, **wanted: str) -> list[SentMail]:
        """Mails that match all of ``to``, ``template``, ``subject`` and ``link`` (the last two: a part)."""
        return [mail for mail in self.mails if not _differences(mail, wanted)]

    def assert_one_mail(self, **wanted: str) -> SentMail:
        """The only mail that matches; fails with what was sent instead. Takes what `matching` takes."""
        found = self.matching(**wanted)
        assert len(found) == 1, f"{len(found)} mails match {wanted}; sent were: {self._summary()}"
        return found[0]

    def assert_no_mail(self, **wanted: str) -> None:
        """Fails if a mail matches; without arguments, if any was sent."""
        assert not self.matching(**wanted), f"expected no such mail; sent were: {self._summary()}"

    @contextlib.contextmanager
    def captured(self) -> Iterator[list[SentMail]]:
        """The mails sent within the block, complete once it ends."""
        found: list[SentMail] = []
        before = len(self.mails)
        yield found
        found.extend(self.mails[before:])

    def _summary(self) -> str:
        lines = [f"{m.template or '-'} to {', '.join(m.recipients)}: {m.subject!r}" for m in self.mails]
        return "; ".join(lines) or "none"


def _differences(mail: SentMail, wanted: dict[str, str]) -> list[str]:
    checks: dict[str, Callable[[str], bool]] = {
        "to": lambda value: value in mail.recipients,
        "template": lambda value: value == mail.template,
        "subject": lambda value: value in mail.subject,
        "link": lambda value: any(value in link for link in mail.links),
    }
    unknown = set(wanted) - set(checks)
    assert not unknown, f"cannot match by {', '.join(sorted(unknown))}; use {', '.join(checks)}"
    return [name for name, value in wanted.items() if not checks[name](value)]


class _Recorder:
    """A transport that keeps parcels; it accepts everything."""

    name = "outbox"

    def __init__(self, outbox: Outbox, template_of: Callable[[str], str | None]) -> None:
        self._outbox = outbox
        self._template_of = template_of

    def transmit(self, batch: Sequence[Any], ledger: Any) -> list[Any]:
        from mailer.transports import Receipt, Reply, Result, Stage

        leaving = ledger.update((), batch)
        for parcel in batch:
            if parcel.id in leaving:
                template = self._template_of(parcel.id)
                kept = SentMail(parcel.id, template, parcel.sender, parcel.recipients, parcel.data)
                self._outbox.mails.append(kept)
        accepted = Result(Stage.TEXT, Reply(250, "2.0.0 kept"), text_sent=True)
        return [Receipt(self.name, dict.fromkeys(parcel.recipients, accepted)) for parcel in batch]

    def close(self) -> None:
        """Nothing is open."""


@contextlib.contextmanager
def recording(app: flask.Flask) -> Iterator[Outbox]:
    """Within the block, the application's mails go to the `Outbox` as soon as they are committed."""
    from mailer.extension import services_of
    from mailer.store import messages
    from mailer.store.migrations import upgrade

    services = services_of(app)
    upgrade(services.store.engine)
    task = app.extensions["mailer.send_email"]

    def template_of(id_: str) -> str | None:
        with services.store.read() as connection:
            row = messages.load(connection, id_)
        return row["template"] if row else None

    def deliver_at_once(wakeups: Any) -> None:
        for wakeup in wakeups:
            task.deliver(*json.loads(json.dumps([wakeup.message])))

    outbox = Outbox()
    kept = services.transport, services.publish
    services.transport, services.publish = _Recorder(outbox, template_of), deliver_at_once
    try:
        yield outbox
    finally:
        services.transport, services.publish = kept


@pytest.fixture
def outbox(app: flask.Flask) -> Iterator[Outbox]:
    """The mails the application under test sends, through the real path, without a broker."""
    with recording(app) as found:
        yield found
