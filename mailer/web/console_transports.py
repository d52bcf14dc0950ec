"""The console's page about transports: which work, which rest and why, and pausing one by hand."""

from __future__ import annotations

import flask

from mailer import carriers
from mailer.errors import InvalidMessage
from mailer.operators import Role
from mailer.telemetry import log
from mailer.web.console_login import services
from mailer.web.console_roles import Answer, may, needs, person

DONE = {
    "paused": "Paused. Nothing goes this way until somebody resumes it.",
    "resumed": "In use again. What waited is due now.",
}
_MOST_WORDS = 200


def add_to(blueprint: flask.Blueprint) -> None:
    """Put the pages of this module into the console."""
    blueprint.add_url_rule("/transports", view_func=transports)
    blueprint.add_url_rule("/transports/<name>/pause", view_func=pause, methods=["GET", "POST"])
    blueprint.add_url_rule("/transports/<name>/resume", view_func=resume, methods=["POST"])
    blueprint.register_error_handler(InvalidMessage, explain_name)


def transports() -> Answer:
    """How each stands, what it carried in the last hour, and its limits."""
    refresh = flask.request.headers.get("HX-Request") == "true"
    return flask.render_template(
        "console/_transports.html" if refresh else "console/transports.html",
        found=carriers.carriers(services()),
        terms=carriers.terms,
        slowed=carriers.slowed,
        may_pause=may(Role.ADMIN),
        notice=DONE.get(flask.request.args.get("done", "")),
    )


@needs(Role.ADMIN)
def pause(name: str) -> Answer:
    """Ask why, and let nothing through it any more."""
    carriers.check(services(), name)
    if flask.request.method == "GET":
        return flask.render_template("console/pause.html", name=name)
    why = flask.request.form.get("why", "").strip()[:_MOST_WORDS]
    carriers.pause(services(), name, by=person().name, why=why)
    log.info("console.transport_paused", operator=person().id, transport=name)
    return _back("paused")


@needs(Role.ADMIN)
def resume(name: str) -> Answer:
    """Use it again at once."""
    carriers.resume(services(), name)
    log.info("console.transport_resumed", operator=person().id, transport=name)
    return _back("resumed")


def explain_name(error: InvalidMessage) -> Answer:
    """Somebody removed it from the settings, or made the address up."""
    problem = "There is no transport of this name. It may have been taken out of the settings."
    return flask.render_template("console/error.html", title="Not found", problem=problem), 404


def _back(done: str) -> Answer:
    return flask.redirect(flask.url_for("console.transports", done=done), 303)
