"""The ``outbox`` fixture, used as an application's own tests use it."""

from __future__ import annotations

import flask
import pytest

from mailer import Attachment, Mailer, Secret, send_email
from tests.delivery.conftest import Note, build


@pytest.fixture
def app(tmp_path) -> flask.Flask:
    from flask_sqlalchemy_lite import SQLAlchemy

    db, mailer = SQLAlchemy(), Mailer()
    app = build(tmp_path, mailer, db)

    @mailer.context_provider("reset_password", provides=("link",))
    def link(context):
        return {"link": Secret(f"https://app.test/reset?token={context['user_id']}")}

    @app.post("/forgot")
    def forgot():
        db.session.add(Note(text="asked"))
        send_email.delay("reset_password", to="ada@x.test", context={"user_id": 7, "name": "Ada"})
        if flask.request.args.get("fails"):
            flask.abort(400)
        db.session.commit()
        return "sent"

    return app


def test_the_real_path_without_a_broker(app, outbox):
    """Commit hook, JSON, provider, rendering and MIME are real; the link is there to be followed."""
    app.test_client().post("/forgot")
    mail = outbox.assert_one_mail(to="ada@x.test", template="reset_password", link="/reset")
    assert mail.link == "https://app.test/reset?token=7"
    assert "Ada" in mail.html
    assert mail.sender == "no-reply@acme.test"


def test_a_rolled_back_request_sends_nothing(app, outbox):
    """RT3: what was not committed was never sent, in tests as in life."""
    with outbox.captured() as mails:
        app.test_client().post("/forgot?fails=1")
    assert mails == []
    outbox.assert_no_mail()


def test_failures_say_what_was_sent_instead(app, outbox):
    """An assertion that fails tells enough to mend the test."""
    with app.app_context():
        send_email.delay(to="bob@x.test", subject="Hi", text="x", session=None)
    with pytest.raises(AssertionError, match=r"0 mails match .*sent were: - to bob@x\.test: 'Hi'"):
        outbox.assert_one_mail(to="ada@x.test")
    with pytest.raises(AssertionError, match="cannot match by recipient"):
        outbox.matching(recipient="bob@x.test")
    with pytest.raises(AssertionError):
        outbox.assert_no_mail()


def test_attachments_and_captured(app, outbox):
    """A block's mails are its own; attachments come by name."""
    with app.app_context():
        send_email.delay(to="bob@x.test", subject="one", text="x", session=None)
        with outbox.captured() as mails:
            send_email.delay(
                to="bob@x.test", subject="two", text="x", session=None,
                attachments=[Attachment("a.txt", b"hello")],
            )  # fmt: skip
    assert [mail.subject for mail in mails] == ["two"]
    assert mails[0].attachments == {"a.txt": b"hello"}
    assert len(outbox) == 2
