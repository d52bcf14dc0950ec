"""Real servers take what we send: Postfix, and Exim with TLS and a password, from Debian's packages.

The three hundred mails of `tests.corpus` go through the whole product. Half of them are for mailboxes of the
server, the other half it passes on to a next hop without any extension: no 8BITMIME, no SIZE, no PIPELINING.
"""

from __future__ import annotations

import contextlib
import email
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import flask
import pytest

from mailer import Attachment, Mailer, send_email
from mailer.address import parse_list
from mailer.dkim import Signer, make_key
from mailer.services import Services
from mailer.states import State
from mailer.store import messages as message_rows
from mailer.store import queries
from mailer.store.migrations import upgrade
from mailer.worker import work_once
from tests.authority import Authority
from tests.conftest import had
from tests.corpus import assert_same, mails
from tests.mail_servers import (
    MOST_IN_RECORD,
    MOST_OCTETS,
    PASSWORD,
    USER,
    Kept,
    MailServer,
    exim,
    parted,
    postfix,
)
from tests.peer import Script, SmtpPeer
from tests.reading import check_wire, leaves, parsed, text_of
from tests.signatures import check_ed25519, check_rsa

MAILS = mails()


@dataclass(frozen=True)
class Real:
    """A server, its next hop, and an application that sends through it."""

    name: str
    server: MailServer
    next_hop: SmtpPeer
    app: flask.Flask

    @property
    def services(self) -> Services:
        return self.app.extensions["mailer"]

    def send(self, **asked: Any) -> str:
        """Ask for a mail; answer its id."""
        with self.app.app_context():
            return send_email.delay(**asked).id

    def work(self) -> None:
        """Attempt what is due, and wait until the server has delivered what it took."""
        work_once(self.services)
        self.server.wait()

    def arrived(self) -> list[Kept]:
        """What is in the server's mailboxes, and what the next hop took for each recipient."""
        found = self.server.mailbox()
        for copy in self.next_hop.accepted:
            trace, text = parted(copy.data)
            found += [Kept(recipient, text, trace) for recipient in copy.recipients]
        return found

    def shown(self, id_: str) -> queries.MessageView:
        with self.services.store.read() as connection:
            return queries.show(connection, id_)

    def frozen(self, id_: str) -> bytes:
        """The bytes of the mail as the product keeps them for every attempt."""
        with self.services.store.read() as connection:
            return message_rows.open_rendered(connection, id_, self.services.store.sealer)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.context("127.0.0.1")
    return made


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> list[str]:
    """MAILER_DKIM_KEYS of an RSA and an ed25519 key, made as an operator makes them."""
    folder = tmp_path_factory.mktemp("keys")
    make_key(folder / "rsa.pem")
    make_key(folder / "ed.pem", ed25519=True)
    return [f"acme.test:rsa:{folder / 'rsa.pem'}", f"acme.test:ed:{folder / 'ed.pem'}"]


@contextlib.contextmanager
def running(name: str, folder: Path, authority: Authority, keys: list[str], **changes: str) -> Iterator[Real]:
    """A server, and an application that trusts it, and signs in to Exim; ``changes`` are made to the URL."""
    user = f"{USER}:{quote(changes.pop('password', PASSWORD), '')}@" if name == "exim" else ""
    options = urlencode({"starttls": "required", "ca_file": authority.ca_file} | changes)
    with SmtpPeer(Script(extensions=[])) as next_hop, had(start(name, next_hop, authority, keys)) as server:
        app = flask.Flask(name, root_path=str(folder))
        app.config.update(
            MAILER_DATA_DIR=str(folder),
            MAILER_SMTP_URL=f"smtp://{user}127.0.0.1:{server.port}?{options}",
            MAILER_DKIM_KEYS=keys,
            MAILER_DEFAULT_SENDER="Acme <no-reply@acme.test>",
        )
        Mailer(app)
        upgrade(app.extensions["mailer"].store.engine)
        yield Real(name, server, next_hop, app)
        app.extensions["mailer"].transport.close()


def start(
    name: str, next_hop: SmtpPeer, authority: Authority, keys: list[str]
) -> AbstractContextManager[MailServer]:
    certificate = authority.folder / "127.0.0.1.pem"
    if name == "postfix":
        return postfix(next_hop.port, certificate)
    texts = {key.host: key.record() for key in Signer.load(keys).keys}
    records = {host: text for host, text in texts.items() if len(text) <= MOST_IN_RECORD}  # not RSA's
    return exim(next_hop.port, certificate, records)


# The three hundred


@dataclass(frozen=True)
class Sent:
    """The three hundred after one worker's turn: their ids, and what arrived, by name."""

    real: Real
    ids: dict[str, str]
    arrived: list[tuple[str, Kept]]


@pytest.fixture(scope="module", params=["postfix", "exim"])
def sent(request, tmp_path_factory, authority, keys) -> Iterator[Sent]:
    """Asked for by ``send_email.delay``, sent with the transport's own defaults."""
    with running(request.param, tmp_path_factory.mktemp("app"), authority, keys) as real:
        ids = {name: real.send(**asked) for name, asked in MAILS.items()}
        real.work()
        names = {real.shown(id_).message_id: name for name, id_ in ids.items()}
        # What has no name is none of ours: a bounce.
        arrived = [(names.get(message_id_of(kept.data), "?"), kept) for kept in real.arrived()]
        yield Sent(real, ids, arrived)


def message_id_of(data: bytes) -> str:
    return str(email.message_from_bytes(data)["message-id"])


def test_every_mail_is_delivered_once(sent):
    """DL1: each of them to each of its recipients, one copy, and the product knows it."""
    states = {name for name, id_ in sent.ids.items() if sent.real.shown(id_).state != State.SENT}
    assert (len(sent.ids), states) == (300, set())
    wanted = Counter((name, to) for name, asked in MAILS.items() for to in recipients(asked))
    assert Counter((name, kept.recipient) for name, kept in sent.arrived) == wanted


def recipients(asked: Mapping[str, Any]) -> list[str]:
    found = [parse_list(asked[header], header) for header in ("to", "cc", "bcc") if header in asked]
    return [address.addr_spec for addresses in found for address in addresses]


def test_what_arrives_says_what_was_asked(sent):
    """MF2, MF3, MF4: header values and decoded parts are equal, octet for octet, and the limits are kept."""
    for name, kept in sent.arrived:
        check_wire(kept.data, foldable=False, lone_dots=name.startswith("attached_mails"))
        assert_same(MAILS[name], kept.data)


def test_what_arrives_is_what_every_attempt_would_send(sent):
    """MF7, DK3: neither server, nor the next hop without 8BITMIME, has a reason to change an octet."""
    frozen = {name: sent.real.frozen(id_) for name, id_ in sent.ids.items()}
    assert [name for name, kept in sent.arrived if kept.data != frozen[name]] == []


def test_every_signature_is_right_where_it_arrives(sent):
    """DK1-DK4: RSA by dkimpy, ed25519 by what dkimpy has to say of headers and body."""
    signer = sent.real.services.signer
    (ed25519,) = (key for key in signer.keys if key.algorithm == "ed25519-sha256")
    for data in {kept.data for _, kept in sent.arrived}:
        check_rsa(data, signer)
        check_ed25519(data, ed25519)


@pytest.mark.parametrize("sent", ["exim"], indirect=True)
def test_exim_finds_the_ed25519_signature_right(sent):
    """DK1, DK4: each time it takes a mail, by its own means."""
    log = sent.real.server.log()
    right = re.findall(r"DKIM: d=acme.test s=ed .* a=ed25519-sha256 .* \[verification succeeded\]", log)
    assert len(right) == log.count(" <= ") >= 300


def test_connections_are_kept_and_pipelined(sent):
    """SC17: the servers find no fault with commands that come behind a text, on few connections."""
    log = sent.real.server.log()
    opened = re.findall(r"smtpd\[\d+\]: connect from|SMTP connection from \S+ \(", log)
    assert 1 < len(opened) < 30, "300 mails"
    # Exim writes L where pipelining was made use of, L- where it was offered only, esmtpsa for TLS and AUTH.
    if sent.real.name == "exim":
        used = re.findall(r" <= .* P=esmtpsa (L\S*)", log)
        assert (len(used) >= 300, [letters for letters in used if "-" in letters]) == (True, [])
    complaints = re.findall(".*(?:protocol|synchroni[sz]ation|syntax|improper|warning).*", log)
    about_us = [line for line in complaints if "clock" not in line and "time stamps" not in line]
    assert not about_us  # a virtual machine's clock may be a second off its disk's


def test_a_link_of_5000_characters_is_not_broken(sent):
    """MF2: it is whole where it arrives, also if a next hop took it."""
    found = [kept for name, kept in sent.arrived if name.startswith("long_links")]
    assert len(found) == 10
    for kept in found:
        html = next(part for part in leaves(parsed(kept.data)) if part.get_content_subtype() == "html")
        assert re.search('href="https://acme.test/confirm[?]n=[0-9]&token=[0-9a-f]{5000}"', text_of(html))


# What they refuse


@pytest.fixture(params=["postfix", "exim"])
def real(request, tmp_path, authority, keys) -> Iterator[Real]:
    """A server, and one connection to it: what follows a refusal has to live with what it left."""
    with running(request.param, tmp_path, authority, keys, connections="1") as started:
        yield started


def test_an_unknown_recipient_harms_no_other(real):
    """SC2: 550 for one of three, and for all of one mail between others: each has an outcome of their own."""
    unknown, first = "unknown@box.test", real.send(to="ada@box.test", subject="first", text="x")
    mixed = real.send(to=["ada@box.test", unknown, "bob@far.test"], subject="mixed", text="x")
    alone, last = (real.send(to=to, subject=to, text="x") for to in (unknown, "bob@box.test"))
    real.work()
    mails = [real.shown(id_) for id_ in (first, mixed, alone, last)]
    assert [{d.recipient: d.state for d in mail.deliveries} for mail in mails] == [
        {"ada@box.test": State.SENT},
        {"ada@box.test": State.SENT, unknown: State.FAILED, "bob@far.test": State.SENT},
        {unknown: State.FAILED},
        {"bob@box.test": State.SENT},
    ]
    refused = [d for mail in mails for d in mail.deliveries if d.recipient == unknown]
    assert [(d.code, d.reason) for d in refused] == [(550, "mailbox_unknown")] * 2
    assert sorted(kept.recipient for kept in real.arrived()) == [
        "ada@box.test", "ada@box.test", "bob@box.test", "bob@far.test",
    ]  # fmt: skip


def test_what_is_too_large_is_not_transferred(real):
    """SC14: it fails before the server has seen any of it; one that is nearly too large arrives."""
    large = real.send(to="ada@box.test", subject="large", text="x", attachments=[octets(MOST_OCTETS)])
    fits = real.send(to="ada@box.test", subject="fits", text="x", attachments=[octets(MOST_OCTETS * 7 // 10)])
    real.work()
    (refused,), (taken,) = real.shown(large).deliveries, real.shown(fits).deliveries
    assert (refused.state, refused.code, refused.reason) == (State.FAILED, 552, "message_too_large")
    assert refused.reply.startswith("5.3.4 not sent: ")
    assert refused.reply.endswith(f" octets, the server takes {MOST_OCTETS}")
    assert taken.state == State.SENT
    assert [kept.data for kept in real.arrived()] == [real.frozen(fits)]
    assert MOST_OCTETS * 0.9 < len(real.frozen(fits)) < MOST_OCTETS
    assert real.shown(fits).message_id.strip("<>") in real.server.log()
    assert real.shown(large).message_id.strip("<>") not in real.server.log()


def octets(number: int) -> Attachment:
    return Attachment("large.bin", bytes(number), "application/octet-stream")


def test_an_address_beyond_ascii_goes_where_it_can(real):
    """SC15, MF19: Postfix offers SMTPUTF8 and gets it; this Exim does not, and the mail fails for that."""
    id_ = real.send(to="zoë@box.test", subject="Grüße", text="Hello")
    real.work()
    (delivery,) = real.shown(id_).deliveries
    if real.name == "exim":
        assert (delivery.state, delivery.code, delivery.reason) == (State.FAILED, 553, "smtputf8_missing")
        return
    (kept,) = real.arrived()
    assert (delivery.state, kept.recipient, kept.data) == (State.SENT, "zoë@box.test", real.frozen(id_))
    assert b"with UTF8SMTPS " in kept.trace
    check_rsa(kept.data, real.services.signer)


@pytest.mark.parametrize("name", ["postfix", "exim"])
def test_a_server_that_is_not_trusted_gets_nothing(name, tmp_path, authority, keys):
    """SC10, SC7: its certificate is of another authority: the mail waits, and nothing was said."""
    stranger = Authority(tmp_path)
    with running(name, tmp_path, authority, keys, ca_file=stranger.ca_file) as real:
        delivery = waiting(real)
        assert (delivery.reason, real.arrived()) == ("tls_failed", [])
        assert "certificate is not valid" in delivery.reply
        assert "AUTH" not in real.server.log()


def test_a_wrong_password_is_the_transports_fault(tmp_path, authority, keys):
    """SC7, SC11: Exim's 535, said behind TLS: the mail waits, at no cost."""
    with running("exim", tmp_path, authority, keys, password="guessed") as real:
        delivery = waiting(real)
        assert (delivery.code, delivery.reason, real.arrived()) == (535, "auth_failed", [])


def waiting(real: Real) -> queries.DeliveryView:
    """What became of a mail that could not be handed over."""
    id_ = real.send(to="ada@box.test", subject="x", text="x")
    real.work()
    (delivery,) = real.shown(id_).deliveries
    assert (delivery.state, delivery.attempts) == (State.DEFERRED, 0)
    return delivery
