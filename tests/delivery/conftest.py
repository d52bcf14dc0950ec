"""An application with Mailer in it, as a developer would write it, and a scripted transport."""

from __future__ import annotations

from collections.abc import Callable

import flask
import pytest
from flask_sqlalchemy_lite import SQLAlchemy
from sqlalchemy import orm

from mailer import Mailer
from mailer.store.migrations import upgrade
from mailer.transports import Parcel, Receipt, Reply, Result, Stage


class Model(orm.DeclarativeBase):
    pass


class Note(Model):
    """The host application's own table."""

    __tablename__ = "note"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str]


class ScriptedTransport:
    """Answers every recipient by `answer`, and keeps the parcels whose text went out."""

    name = "scripted"

    def __init__(self) -> None:
        self.sent: list[Parcel] = []
        self.answer: Callable[[str], Result] = lambda _: Result(Stage.TEXT, Reply(250, "ok"), text_sent=True)
        self.transcript: tuple[str, ...] = ()

    def transmit(self, batch, ledger):
        return [self.carry(parcel, ledger) for parcel in batch]

    def carry(self, parcel, ledger):
        results = {r: self.answer(r) for r in parcel.recipients}
        if any(r.text_sent for r in results.values()):
            if parcel.id in ledger.update((), (parcel,)):
                self.sent.append(parcel)
            else:
                results = {r: Result(Stage.DATA, problem="lease lost") for r in parcel.recipients}
        receipt = Receipt(self.name, results, transcript=self.transcript)
        ledger.update([(parcel, receipt)], ())
        return receipt

    def close(self):
        pass


@pytest.fixture
def mailer() -> Mailer:
    return Mailer()


@pytest.fixture
def db() -> SQLAlchemy:
    return SQLAlchemy()


def build(tmp_path, mailer, db=None, name="host", **config) -> flask.Flask:
    app = flask.Flask(name, root_path=str(tmp_path))
    url = f"sqlite:///{tmp_path / f'{name}.db'}"
    app.config.update(
        MAILER_DATA_DIR=str(tmp_path / name),
        MAILER_DEFAULT_SENDER="Acme <no-reply@acme.test>",
        MAILER_SITE_NAME="Acme",
    )
    if db is None:
        app.config["MAILER_DATABASE_URL"] = url
    app.config.update(config)
    if db is not None:
        app.config["SQLALCHEMY_ENGINES"] = {"default": url}
        db.init_app(app)
    mailer.init_app(app, session=db)
    services = app.extensions["mailer"]
    services.transport = ScriptedTransport()
    upgrade(services.store.engine)
    if db is not None:
        with app.app_context():
            Model.metadata.create_all(db.engine)
    return app


@pytest.fixture
def app(tmp_path, mailer, db) -> flask.Flask:
    """A host application whose session mails join."""
    return build(tmp_path, mailer, db)


@pytest.fixture
def alone(tmp_path, mailer):
    """An application without a database of its own, in its context."""
    app = build(tmp_path, mailer, name="alone")
    with app.app_context():
        yield app


def state(app, id_: str) -> str:
    from mailer import outbox

    return outbox.state(app.extensions["mailer"], id_).value
