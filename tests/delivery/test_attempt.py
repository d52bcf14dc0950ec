"""One attempt, from the wake-up to the record."""

from __future__ import annotations

import email
import email.policy
import logging
import os
import uuid
from datetime import timedelta

import dkim
import pytest
import sqlalchemy as sa

from mailer import Attachment, Secret, SecretErased, StoreError, WrongState, delivery, outbox, send_email
from mailer.delivery import deliver, deliver_due
from mailer.dkim import Signer, make_key
from mailer.retry import LEASE_LOST
from mailer.sealing import Sealer
from mailer.store import deliveries as rows
from mailer.store import messages as message_rows
from mailer.store import queries
from mailer.transports import Receipt, Reply, Result, Stage
from mailer.worker import work_once

HI = {"subject": "Hi", "text": "Hello"}
OK = Result(Stage.TEXT, Reply(250, "ok"), text_sent=True)


@pytest.fixture
def app(alone):
    with alone.app_context():
        yield alone


@pytest.fixture
def services(app):
    return app.extensions["mailer"]


@pytest.fixture
def transport(services):
    return services.transport


@pytest.fixture
def clock(services):
    """The application's clock, to be moved by hand."""

    class Clock:
        offset = timedelta(0)

    real = services.now
    services.now = lambda: real() + Clock.offset
    return Clock


def view(services, id_):
    with services.store.read() as connection:
        return queries.show(connection, id_)


def parsed(parcel):
    return email.message_from_bytes(parcel.data, policy=email.policy.default)


def test_a_mail_is_sent_whole(services, transport):
    """The path of one message: what was asked for is what goes out."""
    accepted = send_email.delay(
        "receipt",
        to=[("Zoë", "zoe@x.test")],
        cc="cc@x.test",
        bcc="bcc@x.test",
        reply_to="help@acme.test",
        headers={"X-Order": "7"},
        attachments=[Attachment("invoice.pdf", b"%PDF")],
        context=services.templates.preview_context("receipt"),
    )
    assert deliver(services, accepted.id) == 3
    [parcel] = transport.sent
    mail = parsed(parcel)
    assert parcel.recipients == ("zoe@x.test", "cc@x.test", "bcc@x.test")
    assert "bcc" not in mail
    assert (mail["reply-to"], mail["x-order"]) == ("help@acme.test", "7")
    assert [p.get_filename() for p in mail.iter_attachments()] == ["invoice.pdf"]
    assert mail.get_body(("html",))
    assert mail.get_body(("plain",))
    shown = view(services, accepted.id)
    assert (shown.state, mail["message-id"]) == ("sent", shown.message_id)
    assert [e.name for e in shown.events] == ["accepted", "sent", "sent", "sent"]


def test_every_recipient_has_its_own_outcome(services, transport, clock):
    """SC2: 250, 550 and 450 are sent, failed and deferred; only the deferred one is tried again."""
    answers = {
        "a@x.test": OK,
        "b@x.test": Result(Stage.RCPT, Reply(550, "5.1.1 no such user")),
        "c@x.test": Result(Stage.RCPT, Reply(450, "4.2.0 greylisted")),
    }
    transport.answer = answers.__getitem__
    accepted = send_email.delay(to=list(answers), **HI)
    deliver(services, accepted.id)
    found = {d.recipient: (d.state, d.code) for d in view(services, accepted.id).deliveries}
    assert found == {"a@x.test": ("sent", 250), "b@x.test": ("failed", 550), "c@x.test": ("deferred", 450)}
    transport.answer = lambda _: OK
    assert deliver(services, accepted.id) == 0, "not before its time"
    clock.offset = timedelta(minutes=2)
    assert deliver(services, accepted.id) == 1
    assert transport.sent[-1].recipients == ("c@x.test",)


def test_bytes_are_the_same_in_every_attempt(mailer, services, transport, clock):
    """MF5–MF7: Message-ID, Date and bytes stay, although the provider mints a new link each time."""
    mailer.context_provider("reset_password", provides=("link",))(
        lambda context: {"link": Secret(f"https://x.test/{uuid.uuid4()}")}
    )
    transport.answer = lambda _: Result(Stage.TEXT, Reply(451, "later"), text_sent=True)
    accepted = send_email.delay("reset_password", to="a@x.test", context={"name": "Ada"})
    deliver(services, accepted.id)
    clock.offset, transport.answer = timedelta(minutes=5), lambda _: OK
    deliver(services, accepted.id)
    assert len(transport.sent) == 2
    assert len({parcel.data for parcel in transport.sent}) == 1


def test_resend_is_a_new_message_with_a_fresh_link(mailer, services, transport):
    """RT12, MF5: a person's resend has its own Message-ID, its own secrets, and a link to the old one."""
    mailer.context_provider("reset_password", provides=("link",))(
        lambda context: {"link": Secret(f"https://x.test/{uuid.uuid4()}")}
    )
    old = send_email.delay("reset_password", to="a@x.test", context={"name": "Ada"}, expires_in=900)
    deliver(services, old.id)
    new = outbox.resend(services, old.id, by="eve", idempotency_key="click")
    assert outbox.resend(services, old.id, by="eve", idempotency_key="click") == new, "a double click"
    deliver(services, new)
    first, second = map(parsed, transport.sent)
    assert first["message-id"] != second["message-id"]
    assert first.get_body(("plain",)).get_content() != second.get_body(("plain",)).get_content()
    assert view(services, new).resent_from == old.id
    assert view(services, old.id).resent_as == [new]
    assert view(services, new).expires_at is not None


def test_secrets_are_gone_when_the_message_has_ended(services, transport):
    """PD2: afterwards nobody can read the link, neither in the preview nor by resending."""
    accepted = send_email.delay(
        "reset_password", to="a@x.test", context={"name": "Ada", "link": Secret("https://x.test/canary")}
    )
    deliver(services, accepted.id)
    assert "canary" in parsed(transport.sent[0]).get_body(("plain",)).get_content()
    with services.store.read() as connection:
        shown = message_rows.open_preview(connection, accepted.id, services.store.sealer)
        assert message_rows.open_rendered(connection, accepted.id, services.store.sealer) == shown
    assert b"canary" not in shown
    assert b"Ada" in shown
    with pytest.raises(SecretErased):
        outbox.resend(services, accepted.id, by="eve")


def test_a_retry_by_hand_mints_fresh_secrets(mailer, services, transport):
    """After a failure the link is erased; trying again must not send the mask."""
    mailer.context_provider("reset_password", provides=("link",))(
        lambda context: {"link": Secret("https://x.test/minted")}
    )
    transport.answer = lambda _: Result(Stage.RCPT, Reply(550, "no"))
    accepted = send_email.delay("reset_password", to="a@x.test", context={"name": "Ada"})
    deliver(services, accepted.id)
    assert accepted.failed()
    transport.answer = lambda _: OK
    assert outbox.retry(services, accepted.id, by="eve") == 1
    deliver(services, accepted.id)
    assert "minted" in parsed(transport.sent[-1]).get_body(("plain",)).get_content()
    with pytest.raises(WrongState):
        outbox.retry(services, accepted.id, by="eve")


def test_the_deadline_is_checked_right_before_the_text(services, transport, clock):
    """RT8: a link that expired between claim and text does not leave, and ends as expired."""
    accepted = send_email.delay(to="a@x.test", expires_in=60, **HI)
    real = transport.transmit

    def slow(batch, ledger):
        clock.offset = timedelta(seconds=61)
        return real(batch, ledger)

    transport.transmit = slow
    deliver(services, accepted.id)
    assert (transport.sent, state_of(services, accepted.id)) == ([], "expired")


def state_of(services, id_):
    return outbox.state(services, id_).value


def test_a_lost_lease_sends_and_changes_nothing(services, transport):
    """RT4: a worker that comes back late finds the fence closed."""
    accepted = send_email.delay(to="a@x.test", **HI)
    transport.answer = lambda _: Result(Stage.DATA, problem=LEASE_LOST)
    deliver(services, accepted.id)
    assert state_of(services, accepted.id) == "sending"
    assert transport.sent == []


def test_a_transport_that_breaks_its_contract_loses_nothing(services, transport):
    """Whatever a transport raises, the mail is tried again and its lease is not held for ever."""

    def broken(_batch, _ledger):
        raise RuntimeError("bug")

    transport.transmit = broken
    accepted = send_email.delay(to="a@x.test", **HI)
    deliver(services, accepted.id)
    shown = view(services, accepted.id).deliveries[0]
    assert (shown.state, shown.reason) == ("deferred", "connect_failed")


def test_what_was_said_is_told_of_those_who_did_not_get_it(services, transport):
    """Support can see why: the conversation stands beside what failed, and beside nothing else."""
    transport.transcript = ("C: RCPT TO:<b***@x.test>", "S: 550 5.1.1 who?")
    transport.answer = lambda who: (
        Result(Stage.RCPT, Reply(550, "5.1.1 who?"))
        if who == "b@x.test"
        else Result(Stage.TEXT, Reply(250, "ok"), text_sent=True)
    )
    accepted = send_email.delay(to=["a@x.test", "b@x.test"], **HI)
    deliver(services, accepted.id)
    events = {event.name: event.data for event in view(services, accepted.id).events}
    assert events["failed"]["transcript"] == list(transport.transcript)
    assert "transcript" not in events["sent"]


def test_waiting_for_a_limit_costs_no_try_and_is_no_event(services, transport, caplog):
    """A provider's limit is nobody's fault: the mail is due again when it may go."""
    limited = Result(Stage.CONNECT, problem="waiting for a limit: 14 a second", wait_seconds=7)
    transport.answer = lambda _: limited
    accepted = send_email.delay(to="a@x.test", **HI)
    with caplog.at_level("INFO", "mailer"):
        deliver(services, accepted.id)
    shown = view(services, accepted.id)
    waiting = shown.deliveries[0]
    assert (waiting.state, waiting.reason, waiting.attempts) == ("deferred", "waiting_for_limit", 0)
    assert waiting.not_before - services.now() == pytest.approx(
        timedelta(seconds=7), abs=timedelta(seconds=2)
    )
    assert [event.name for event in shown.events] == ["accepted"]
    assert "mail.deferred" not in caplog.text


def test_what_goes_out_is_signed_and_what_is_shown_is_not(services, transport, tmp_path):
    """DK3: the final bytes are signed once, so every attempt has the same signature; previews have none."""
    make_key(tmp_path / "key.pem")
    services.signer = Signer.load([f"acme.test:s1:{tmp_path / 'key.pem'}"])
    transport.answer = lambda _: Result(Stage.TEXT, Reply(451, "4.3.0 later"), text_sent=True)
    accepted = send_email.delay(to="a@x.test", subject="Hi", text=Secret("your code is 4711"))
    deliver(services, accepted.id)
    outbox.retry(services, accepted.id, by="eve")
    transport.answer = lambda _: OK
    deliver(services, accepted.id)
    first, second = (parcel.data for parcel in transport.sent)
    record = services.signer.keys[0].record().encode()
    assert dkim.verify(first, dnsfunc=lambda *_, **__: record)
    assert first == second
    with services.store.read() as connection:
        shown = message_rows.open_preview(connection, accepted.id, services.store.sealer)
    assert b"DKIM-Signature" not in shown
    assert b"4711" not in shown


def test_a_batch_is_few_transactions(services, transport):
    """What is asked and answered at the same time is one commit: fifty mails cost as many as ten."""

    def at_once(batch, ledger):
        leaving = ledger.update((), batch)
        accepted = Result(Stage.TEXT, Reply(250, "ok"), text_sent=True)
        assert len(leaving) == len(batch)
        receipts = [Receipt("grouped", dict.fromkeys(p.recipients, accepted)) for p in batch]
        ledger.update(list(zip(batch, receipts, strict=True)), ())
        return receipts

    transport.transmit = at_once
    ids = [send_email.delay(to=f"p{n}@x.test", **HI).id for n in range(60)]
    commits = []
    sa.event.listen(services.store.engine, "commit", lambda _: commits.append(1))
    counts = []
    for size in (10, 50):
        commits.clear()
        assert deliver_due(services, "default", size) == size
        counts.append(len(commits))
    assert counts[0] == counts[1] <= 8
    assert {state_of(services, id_) for id_ in ids} == {"sent"}


def test_large_mails_of_a_batch_are_in_memory_one_after_the_other(services, transport, monkeypatch):
    """Two hundred mails with large files must not be read at once."""
    monkeypatch.setattr(delivery, "MOST_OCTETS", 40_000)
    batches, real = [], transport.transmit
    transport.transmit = lambda batch, ledger: (batches.append(len(batch)), real(batch, ledger))[1]
    for _ in range(3):
        file = Attachment("noise.bin", os.urandom(30_000), "application/octet-stream")
        send_email.delay(to="a@x.test", attachments=[file], **HI)
    assert deliver_due(services, "default", 10) == 3
    assert (batches, len(transport.sent)) == ([1, 1, 1], 3)


def test_what_was_answered_is_kept_until_the_store_is_back(services, transport, monkeypatch):
    """A 250 is worth waiting for: it is recorded once the store is back, and nothing is sent twice."""
    accepted, real = send_email.delay(to="a@x.test", **HI), transport.carry

    def away(*_):
        raise StoreError("the store does not answer")

    def carry(parcel, ledger):
        assert parcel.id in ledger.update((), (parcel,))
        with monkeypatch.context() as broken:
            broken.setattr(rows, "finish", away)
            receipt = Receipt("x", dict.fromkeys(parcel.recipients, transport.answer("")))
            assert not ledger.update([(parcel, receipt)], ())
        return receipt

    transport.carry = carry
    deliver(services, accepted.id)
    transport.carry = real
    assert state_of(services, accepted.id) == "sent"
    assert deliver(services, accepted.id) == 0


def test_a_transport_fault_costs_no_try_but_ends_some_day(services, transport, clock):
    """SC7, promise 2: a wrong password fails no message; after five days without a transport it ends."""
    transport.answer = lambda _: Result(Stage.AUTH, Reply(535, "5.7.8 bad credentials"))
    accepted = send_email.delay(to="a@x.test", **HI)
    deliver(services, accepted.id)
    shown = view(services, accepted.id).deliveries[0]
    assert (shown.state, shown.reason, shown.attempts) == ("deferred", "auth_failed", 0)
    clock.offset = timedelta(days=6)
    deliver(services, accepted.id)
    shown = view(services, accepted.id).deliveries[0]
    assert (shown.state, shown.reason) == ("failed", "transport_down")


def test_a_worker_without_the_key_puts_the_mail_off(services, transport, clock):
    """A key that this worker lacks is no fault of the message: it waits for a worker that has it."""
    accepted = send_email.delay(to="a@x.test", **HI)
    right, services.store.sealer = services.store.sealer, Sealer([b"another" * 9])
    deliver(services, accepted.id)
    shown = view(services, accepted.id).deliveries[0]
    assert (shown.state, shown.reason, shown.attempts) == ("deferred", "setting_wrong", 0)
    services.store.sealer, clock.offset = right, timedelta(minutes=5)
    deliver(services, accepted.id)
    assert len(transport.sent) == 1


def test_a_store_that_is_away_fails_no_mail(services, transport, monkeypatch):
    """A database that goes away between claim and render puts the mail off; it does not end it."""

    def away(*_):
        raise StoreError("the store does not answer")

    accepted = send_email.delay(to="a@x.test", **HI)
    with monkeypatch.context() as broken:
        broken.setattr(message_rows, "load_sealed", away)
        deliver(services, accepted.id)
    shown = view(services, accepted.id).deliveries[0]
    assert (shown.state, shown.reason, shown.attempts) == ("deferred", "store_away", 0)


def test_a_page_that_only_rendering_makes_large_is_not_sent(app, services, transport):
    """MF20: what the call could not tell ends as failed with the reason, and goes to nobody."""
    services.settings = services.settings.model_copy(update={"max_message_bytes": 10_000})
    context = services.templates.preview_context("receipt")
    context["items"] = context["items"] * 20
    accepted = send_email.delay("receipt", to="a@x.test", context=context)
    deliver(services, accepted.id)
    shown = view(services, accepted.id).deliveries[0]
    assert (shown.state, transport.sent) == ("failed", [])
    assert "MAILER_MAX_MESSAGE_BYTES" in shown.reply


def test_one_bad_message_harms_no_neighbour(services, transport, monkeypatch):
    """In a batch, a mail whose making raises anything at all ends alone."""
    from mailer import mime

    real = mime.build
    monkeypatch.setattr(mime, "build", lambda **kw: 1 / 0 if kw["subject"] == "bad" else real(**kw))
    bad = send_email.delay(to="a@x.test", subject="bad", text="x")
    good = send_email.delay(to="b@x.test", **HI)
    assert work_once(services) == 2
    assert (bad.state, good.state) == ("failed", "sent")


def test_three_unanswered_texts_are_enough(services, transport, clock):
    """RFC 1047: each text without an answer may be a copy, so after three a person decides."""
    transport.answer = lambda _: Result(Stage.TEXT, text_sent=True, problem="connection lost")
    accepted = send_email.delay(to="a@x.test", **HI)
    for n in range(5):
        clock.offset = timedelta(hours=n)
        deliver(services, accepted.id)
    assert (len(transport.sent), state_of(services, accepted.id)) == (3, "uncertain")


@pytest.mark.parametrize("fault", ["provider", "template"])
def test_a_mail_that_cannot_be_made_ends_as_failed(mailer, services, transport, fault, caplog):
    """A vanished template or a provider that raises is recorded, and its values stay out of the log."""

    def provider(context):
        raise ValueError("canary@x.test")

    accepted = send_email.delay("welcome", to="a@x.test", context={"name": "Ada"})
    if fault == "provider":
        mailer.context_provider("welcome")(provider)
    else:
        services.templates.render = lambda *_: (_ for _ in ()).throw(LookupError("gone"))
    with caplog.at_level(logging.INFO, "mailer"):
        deliver(services, accepted.id)
    assert (state_of(services, accepted.id), transport.sent) == ("failed", [])
    assert "canary" not in caplog.text
    assert "a@x.test" not in caplog.text


def test_garbage_in_the_queue_is_dropped(app, services, caplog):
    """CE2: unknown ids and other tasks' arguments neither raise nor send anything."""
    task = app.extensions["mailer.send_email"]
    with caplog.at_level(logging.ERROR, "mailer"):
        task.run()
        task.run("reset_password", to="a@x.test")
        task.run({"id": 1})
    assert caplog.text.count("wakeup.refused") == 3
    assert "a@x.test" not in caplog.text
    task.run(str(uuid.uuid4()))


def test_cancel_wins_or_loses_cleanly(services, transport):
    """A withdrawn message is not sent; a sent one cannot be withdrawn."""
    gone, sent = send_email.delay(to="a@x.test", **HI), send_email.delay(to="b@x.test", **HI)
    assert outbox.cancel(services, gone.id, by="eve") == 1
    assert work_once(services) == 1
    with pytest.raises(WrongState):
        outbox.cancel(services, sent.id, by="eve")
    assert [p.recipients for p in transport.sent] == [("b@x.test",)]


def test_retry_limits_stand_on_the_task(app, services, transport):
    """RT7: the task's max_retries, in Celery's words, ends a mail that is deferred again and again."""
    task = app.extensions["mailer.send_email"]
    task.max_retries, task.retry_backoff = 1, 0.001
    transport.answer = lambda _: Result(Stage.RCPT, Reply(450, "later"))
    accepted = send_email.delay(to="a@x.test", **HI)
    task.deliver(accepted.id)
    assert accepted.state == "deferred"
    outbox.wait(services, accepted.id, 0.05)
    task.deliver(accepted.id)
    assert accepted.state == "failed"
