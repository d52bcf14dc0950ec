"""The console's pages about webhooks: how each endpoint does, what it was told, and telling it again."""

from __future__ import annotations

import flask

from mailer import webhooks
from mailer.operators import Role
from mailer.store import webhooks as rows
from mailer.store.webhooks import WebhookRow
from mailer.telemetry import log
from mailer.web.console_login import services
from mailer.web.console_roles import Answer, may, needs, person

PAGE = 50
DONE = {
    "replayed": "It is told again, within a second or so.",
    "nothing": "There was nothing to tell again.",
    "enabled": "Told again from now on, also what waited.",
    "disabled": "Told nothing until somebody enables it.",
}
WHY = {
    webhooks.BY_HAND: "Somebody disabled it.",
    webhooks.GONE: "It answered 410: it is gone.",
    webhooks.FAILING: "It took nothing for three days.",
}


def add_to(blueprint: flask.Blueprint) -> None:
    """Put the pages of this module into the console."""
    blueprint.add_url_rule("/webhooks", "webhooks", listed, methods=["GET"])
    blueprint.add_url_rule("/webhooks/<id_>", "webhook", one, methods=["GET"])
    blueprint.add_url_rule("/webhooks/<id_>/replay", "replay_failed", replay, methods=["POST"])
    blueprint.add_url_rule("/webhooks/<id_>/calls/<int:event>/replay", "replay", replay, methods=["POST"])
    for name, view in (("enable", enable), ("disable", disable)):
        blueprint.add_url_rule(f"/webhooks/<id_>/{name}", f"{name}_webhook", view, methods=["POST"])


def listed() -> Answer:
    """Every endpoint, the newest first."""
    with services().store.read() as connection:
        found = rows.every(connection)
    return flask.render_template("console/webhooks.html", found=found)


def one(id_: str) -> Answer:
    """One endpoint with what it was and is told, the newest event first."""
    webhook = _look_up(id_)
    before = flask.request.args.get("before", "")
    oldest = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None
    with services().store.read() as connection:
        calls = rows.calls(connection, id_, PAGE + 1, oldest)
    return flask.render_template(
        "console/webhook.html",
        webhook=webhook,
        calls=calls[:PAGE],
        older=calls[PAGE - 1].event if len(calls) > PAGE else None,
        why=WHY,
        may_replay=may(Role.SUPPORT),
        may_change=may(Role.ADMIN),
        notice=DONE.get(flask.request.args.get("done", "")),
    )


@needs(Role.SUPPORT)
def replay(id_: str, event: int | None = None) -> Answer:
    """Tell it of one event once more, or of all that failed."""
    webhook, number = _look_up(id_), 0
    if event is None or event < 2**63:
        with services().store.begin() as connection:
            number = rows.again(connection, webhook.id, services().now(), event)
    log.info("console.webhook_replayed", operator=person().id, webhook=webhook.id, calls=number)
    return _back(webhook, "replayed" if number else "nothing")


@needs(Role.ADMIN)
def enable(id_: str) -> Answer:
    """Tell it again."""
    return _change(id_, enabled=True)


@needs(Role.ADMIN)
def disable(id_: str) -> Answer:
    """Tell it nothing."""
    return _change(id_, enabled=False)


def _change(id_: str, *, enabled: bool) -> Answer:
    webhook, done = _look_up(id_), "enabled" if enabled else "disabled"
    webhooks.change(services(), webhook.id, enabled=enabled)
    log.info("console.webhook_changed", operator=person().id, webhook=webhook.id, to=done)
    return _back(webhook, done)


def _look_up(id_: str) -> WebhookRow:
    with services().store.read() as connection:
        found = rows.find(connection, id_) if id_.isascii() and id_.isprintable() else None
    if found is None:
        problem = "There is no webhook of this id. It may have been removed."
        page = flask.render_template("console/error.html", title="Not found", problem=problem)
        flask.abort(flask.make_response(page, 404))
    return found


def _back(webhook: WebhookRow, done: str) -> Answer:
    return flask.redirect(flask.url_for("console.webhook", id_=webhook.id, done=done), 303)
