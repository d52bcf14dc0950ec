"""The console's page about suppression lists: who gets no mail, since when and why; adding and removing."""

from __future__ import annotations

import re

import flask

from mailer import suppressions
from mailer.errors import InvalidMessage
from mailer.operators import Role
from mailer.suppressions import Cause, Wanted
from mailer.telemetry import log
from mailer.web.console_login import services
from mailer.web.console_roles import Answer, may, needs, person

PAGE = 50
DONE = {
    "added": "On the list. Mail to it is not sent from now on.",
    "removed": "Off the list. Mail to it is sent again; what was suppressed stays so.",
    "gone": "It was not on the list any more.",
}
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def add_to(blueprint: flask.Blueprint) -> None:
    """Put the pages of this module into the console."""
    blueprint.add_url_rule("/suppressions", "suppressions", listed, methods=["GET"])
    blueprint.add_url_rule("/suppressions", "suppress", add, methods=["POST"])
    blueprint.add_url_rule("/suppressions/<id_>/remove", "unsuppress", remove, methods=["POST"])


def listed(problem: str | None = None) -> Answer:
    """All lists, newest first, narrowed by a part of the address; a page at a time."""
    args = flask.request.args
    text = _UNPRINTABLE.sub("", args.get("q", ""))[:320].strip() or None
    after = args.get("after", "")
    wanted = Wanted(everywhere=True, text=text, limit=PAGE, after=after if _ID.fullmatch(after) else None)
    found, more = suppressions.page(services(), wanted)
    page = flask.render_template(
        "console/suppressions.html",
        found=found,
        names=suppressions.project_names(services(), found),
        wanted=wanted,
        older=found[-1].id if more else None,
        causes=list(Cause),
        may_change=may(Role.SUPPORT),
        notice=DONE.get(args.get("done", "")),
        problem=problem,
    )
    return page, 400 if problem else 200


@needs(Role.SUPPORT)
def add() -> Answer:
    """Put an address on the application's own list."""
    form = flask.request.form
    detail = form.get("detail", "").strip() or None
    try:
        [entry] = suppressions.add(
            services(),
            form.get("address", "").strip(),
            by=person().name,
            cause=form.get("cause", Cause.MANUAL),
            detail=detail,
        )
    except InvalidMessage as exc:
        return listed(problem=f"Not added: {exc}.")
    log.info("console.suppressed", operator=person().id, entry=entry.id)
    return _back("added")


@needs(Role.SUPPORT)
def remove(id_: str) -> Answer:
    """Take an entry off whatever list it is on."""
    gone = suppressions.remove_anywhere(services(), id_, by=person().name) if _ID.fullmatch(id_) else None
    if gone is None:
        return _back("gone")
    log.info("console.unsuppressed", operator=person().id, entry=gone.id)
    return _back("removed")


def _back(done: str) -> Answer:
    return flask.redirect(flask.url_for("console.suppressions", done=done), 303)
