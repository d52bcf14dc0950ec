"""`MailerMailUtil` in an application that already runs on Flask-Security: one line, and Mailer carries it."""

from __future__ import annotations

import re
from pathlib import Path

import flask
import pytest
from flask_security import MailUtil, Security
from flask_security.utils import hash_password, send_mail

from mailer import Mailer
from mailer.errors import ConfigError
from mailer.store import messages as message_rows
from mailer.store import queries
from mailer.store.accounts import AccountDatabase
from mailer.store.migrations import upgrade
from mailer.testing import recording
from mailer.web.accounts_limits import DEFAULTS
from mailer.web.accounts_mail import TEMPLATES, MailerMailUtil
from mailer.worker import work_once
from tests.web.accounts_service import CHEAP, PASSWORD

ADA = "ada@acme.test"


class Host:
    """Flask-Security with its own views, forms and tokens, and Mailer as its way to send."""

    def __init__(self, folder, mail_util=MailerMailUtil, mailer=None, **config):
        self.app = flask.Flask("host", static_folder=None)
        self.app.config.update(
            SECRET_KEY="k" * 32,
            MAILER_DATA_DIR=str(folder),
            MAILER_BASE_URL="https://app.acme.test/shop",
            MAILER_DEFAULT_SENDER="no-reply@acme.test",
            MAILER_SMTP_URL="memory://",
            SECURITY_PASSWORD_SALT="salt",
            SECURITY_PASSWORD_HASH_PASSLIB_OPTIONS=CHEAP,
            SECURITY_CONFIRMABLE=True,
            SECURITY_RECOVERABLE=True,
            SECURITY_CHANGEABLE=True,
            SECURITY_EMAIL_SUBJECT_CONFIRM="Please confirm",
            SECURITY_EMAIL_VALIDATOR_ARGS={"test_environment": True},  # lets .test be a domain
            WTF_CSRF_ENABLED=False,
        )
        self.app.config.update(config)
        self.db = AccountDatabase(f"sqlite:///{folder / 'mailer.db'}")
        self.db.init_app(self.app)
        self.mailer = mailer or Mailer()
        self.mailer.init_app(self.app, session=self.db.session)
        Security(self.app, self.db.datastore(), mail_util_cls=mail_util)
        self.services = self.app.extensions["mailer"]
        upgrade(self.services.store.engine)

    def add(self, address=ADA, confirmed=True):
        with self.app.app_context(), self.db.writing():
            datastore = self.app.extensions["security"].datastore
            datastore.create_user(
                id=address[:3] + "0" * 29,
                email=address,
                email_key=address,
                password=hash_password(PASSWORD),
                created_at=self.services.now(),
                confirmed_at=self.services.now() if confirmed else None,
                signup_hash="-",
                verify_nonce="-",
                reset_nonce="-",
            )

    def mails(self):
        with recording(self.app) as outbox, self.app.app_context():
            while work_once(self.services):
                pass
            return list(outbox)


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    host.add()
    return host


def test_its_own_reset_page_sends_our_template(host):
    """AU9: the link is minted in the worker from the base URL, and its own view takes it."""
    answer = host.app.test_client().post("/reset", data={"email": ADA})
    assert answer.status_code == 200
    [mail] = host.mails()
    assert mail.template == "reset_password"
    assert mail.recipients == (ADA,)
    assert mail.link.startswith("https://app.acme.test/shop/reset/")
    token = mail.link.rpartition("/")[2]
    fields = {"password": "another long password", "password_confirm": "another long password"}
    host.app.test_client().post(f"/reset/{token}", data=fields)
    assert [mail.template for mail in host.mails()] == ["password_changed"]


def test_what_is_stored_is_the_id(host):
    """AU3: neither Flask-Security's token nor ours is in the row."""
    host.app.test_client().post("/reset", data={"email": ADA})
    with host.services.store.read() as connection:
        id_ = connection.exec_driver_sql("SELECT id FROM mailer_messages").scalar_one()
        content, values = message_rows.open_content(connection, id_, host.services.store.sealer)
        shown = queries.show(connection, id_)
    assert content["context"] == {"user_id": "ada" + "0" * 29, "expires_in": "1 day"}
    assert not values
    assert shown.lane == "critical"


def test_its_confirmation_becomes_verify_email(tmp_path):
    """The confirmation page of its own accepts the link of our mail."""
    host = Host(tmp_path)
    host.add(confirmed=False)
    host.app.test_client().post("/confirm", data={"email": ADA})
    [mail] = host.mails()
    assert mail.template == "verify_email"
    host.app.test_client().get("/confirm/" + mail.link.rpartition("/")[2])
    with host.app.app_context():
        assert host.db.find(ADA).confirmed_at is not None


def test_mail_goes_to_the_stored_address(host):
    """AU10: whatever recipient is passed for a mail about a person."""
    with host.app.test_request_context(), host.db.writing():
        user = host.app.extensions["security"].datastore.find_user(email=ADA)
        send_mail("x", "typed@evil.test", "security/email/reset_notice", user=user)
    [mail] = host.mails()
    assert (mail.template, mail.recipients) == ("password_changed", (ADA,))


def test_a_mail_without_a_template_of_ours_is_sealed(host):
    """Its words arrive; people who look at the message see none of them."""
    with host.app.test_request_context(), host.db.writing():
        user = host.app.extensions["security"].datastore.find_user(email=ADA)
        code = {"token": "493201", "username": "ada", "login_token": "493201"}
        send_mail("Your code", ADA, "security/email/two_factor_instructions", user=user, **code)
    with host.services.store.read() as connection:
        id_ = connection.exec_driver_sql("SELECT id FROM mailer_messages").scalar_one()
        content, _values = message_rows.open_content(connection, id_, host.services.store.sealer)
    assert "493201" not in str(content)
    [mail] = host.mails()
    assert "493201" in mail.text
    assert mail.subject == "Your code"


def test_the_application_keeps_its_own_provider(tmp_path):
    """A provider that the application registered wins over ours."""
    mailer = Mailer()
    mailer.context_provider("reset_password", provides=("link",))(lambda _: {"link": "https://own.test/r"})
    host = Host(tmp_path, mailer=mailer)
    host.add()
    host.app.test_client().post("/reset", data={"email": ADA})
    assert host.mails()[0].link == "https://own.test/r"


def test_a_vanished_account_ends_its_mail(host):
    """The worker says what is wrong, and lives on."""
    host.app.test_client().post("/reset", data={"email": ADA})
    with host.services.store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM mailer_users")
    assert host.mails() == []
    with host.services.store.read() as connection:
        row = connection.exec_driver_sql("SELECT state, reply FROM mailer_deliveries").one()
    assert row.state == "failed"
    assert re.search("context provider raised LookupError", row.reply)


def test_mailer_comes_first(tmp_path):
    """The order is a clear error, not a mail that is lost later."""
    app = flask.Flask("host")
    app.config.update(SECRET_KEY="k" * 32, SECURITY_PASSWORD_SALT="s")
    db = AccountDatabase(f"sqlite:///{tmp_path / 'host.db'}")
    with pytest.raises(ConfigError, match="before Security"):
        Security(app, db.datastore(), mail_util_cls=MailerMailUtil)


def test_it_is_a_mail_util():
    """So that Flask-Security's own checks of addresses stay."""
    assert issubclass(MailerMailUtil, MailUtil)


def test_the_page_about_accounts_names_tests_and_limits_that_exist():
    """What the documentation claims is proved where it says so."""
    root = Path(__file__).resolve().parent.parent.parent
    page = (root / "docs/reference/accounts.md").read_text("utf-8")
    source = (root / "tests/web/test_accounts.py").read_text("utf-8")
    assert {name for name in re.findall(r"`(test_\w+)`", page) if f"def {name}(" not in source} == set()
    rows = re.findall(r"^\| (`(?:login|ask|redeem|mail)\..*?) \| (.*?) \|", page, re.M)
    documented = {
        name.strip("`"): rate
        for names, rates in rows
        for name, rate in zip(names.split(", "), rates.split(", "), strict=True)
    }
    assert documented == DEFAULTS
    kinds = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)?.*? \| `(\w+)` \|$", page, re.M)
    assert {(kind, ours) for a, b, ours in kinds for kind in (a, b) if kind in TEMPLATES} == set(
        TEMPLATES.items()
    )
