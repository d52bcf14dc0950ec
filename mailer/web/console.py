"""The console: who got what, what the servers said, and what can be done about it.

Plain pages that work without JavaScript. Where there is one, htmx refreshes the part of a page that changes
by itself. Looking is GET and changes nothing; every deed is a POST with a token (UI5).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import flask
from werkzeug.exceptions import HTTPException

from mailer import outbox
from mailer.errors import ConfigError, IdempotencyConflict, MailerError, MessageNotFound, StoreError
from mailer.operators import Role
from mailer.sealing import signing_key
from mailer.services import Services
from mailer.states import TRANSITIONS, State
from mailer.store import messages as message_rows
from mailer.store import queries
from mailer.store.queries import MessageView
from mailer.telemetry import log
from mailer.web import (
    console_account,
    console_list,
    console_login,
    console_suppressions,
    console_transports,
    console_webhooks,
    console_words,
)
from mailer.web.console_login import is_refresh, services
from mailer.web.console_roles import Answer, may, needs, person, person_or_none
from mailer.web.preview import HTML_POLICY, Preview, take_apart

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NONCE = re.compile(r"[A-Za-z0-9_-]{22}")
_OPEN_TO_ALL = {"console.login", "console.code", "console.enter", "console.static"}

DONE = {
    "resent": "Sent again. This is the new message.",
    "suppressed": "Not sent: the recipient is on the suppression list. This is the new message.",
    "retried": "Queued for another try.",
    "settled": "Settled, on your word.",
    "rescheduled": "It has another time to leave now.",
    "cancelled": "Withdrawn. What had not left stays here.",
}
"""What the page says after a deed; the address names it, so a reload says it again and does nothing."""

blueprint = flask.Blueprint(
    "console",
    __name__,
    url_prefix="/console",
    template_folder="../templates",
    static_folder="../static",
    static_url_path="/static",
)


def init_console(app: flask.Flask) -> None:
    """Add the console to an application that has Mailer set up. Raises ConfigError if it has not."""
    found: Services | None = app.extensions.get("mailer")
    if found is None:
        raise ConfigError("Mailer", "was not set up for this application; call mailer.init_app(app) first")
    if not app.secret_key:
        app.secret_key = signing_key(found.settings.sealing_keys(), "cookies")
    app.extensions[console_login.LIMITER] = console_login.make_limiter(found)
    if csrf := app.extensions.get("csrf"):
        csrf.exempt(blueprint)  # we check for ourselves; both at once would ask a form for two tokens
    app.register_blueprint(blueprint)


blueprint.add_app_template_filter(console_words.shown, "shown")
for _path, _view, _methods in (
    ("/login", console_login.login, ["GET", "POST"]),
    ("/login/code", console_login.code, ["GET", "POST"]),
    ("/enter/<token>", console_login.enter, ["GET", "POST"]),
    ("/logout", console_login.logout, ["POST"]),
):
    blueprint.add_url_rule(_path, view_func=_view, methods=_methods)
console_list.add_to(blueprint)
console_account.add_to(blueprint)
console_transports.add_to(blueprint)
console_suppressions.add_to(blueprint)
console_webhooks.add_to(blueprint)


# Around every request


@blueprint.before_request
def let_in() -> Answer | None:
    """Only people who are logged in come past here, and only forms that are ours."""
    refreshing = is_refresh()
    if flask.request.method == "POST" and (problem := console_login.check_form()):
        return flask.render_template("console/error.html", title="Not done", problem=problem), 400
    if flask.request.endpoint in _OPEN_TO_ALL:
        return None
    found = console_login.person_here(active=not refreshing)
    if found is None:
        looking = flask.request.method == "GET" and not refreshing
        back = flask.request.full_path.rstrip("?") if looking else None
        login = flask.url_for("console.login", next=back)
        return ("", 401, {"HX-Redirect": login}) if refreshing else flask.redirect(login, 303)
    flask.g.console_person = found
    return None


@blueprint.after_request
def guard(response: flask.Response) -> flask.Response:
    """Headers that keep a page from being framed, cached, or made to run what a mail brought (UI6)."""
    headers = response.headers
    headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    headers.setdefault("Referrer-Policy", "same-origin")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-DNS-Prefetch-Control"] = "off"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if flask.request.endpoint != "console.static":
        headers["Cache-Control"] = "no-store"
        headers["Vary"] = "Cookie, HX-Request"
    if console_login.is_https():
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response


@blueprint.context_processor
def words() -> dict[str, Any]:
    """What every template may use."""
    now = services().now()
    return {
        "person": person_or_none(),
        "may_read": may(Role.SUPPORT),
        "site_name": services().settings.site_name,
        "form": console_login.form_token,
        "now": now,
        "ago": lambda at: console_words.ago(at, now),
        "reason": console_words.reason,
        "explain": console_words.explain,
        "size": console_words.size,
    }


@blueprint.errorhandler(HTTPException)
def explain_error(error: HTTPException) -> Answer:
    """A page in our own words, never a stack."""
    page = flask.render_template("console/error.html", title=error.name, problem=error.description)
    return page, error.code or 500


@blueprint.errorhandler(StoreError)
def explain_store(error: StoreError) -> Answer:
    """The store is away: say so, and what to do."""
    return flask.render_template("console/error.html", title="The store does not answer", problem=error), 503


# One message


@blueprint.get("/messages/<id_>")
def message(id_: str) -> Answer:
    """One message: its state, recipients, timeline, and what it looked like."""
    return _page(_look_up(id_), notice=DONE.get(flask.request.args.get("done", "")))


def _look_up(id_: str) -> MessageView:
    found = None
    if _ID.fullmatch(id_):
        with services().store.read() as connection:
            found = queries.show(connection, id_)
    if found is None:
        flask.abort(404, "There is no message with this id. It may have been removed.")
    return found


def _page(found: MessageView, notice: str | None = None, problem: str | None = None) -> Answer:
    refresh = is_refresh()
    shown = None if refresh or not may(Role.SUPPORT) else _preview(found.id)
    part = _part(shown)
    if shown is not None and part in ("text", "source"):
        log.info("console.body_viewed", operator=person().id, message=found.id, part=part)
    page = flask.render_template(
        "console/_message.html" if refresh else "console/message.html",
        m=found,
        entries=[console_words.entry(event) for event in reversed(found.events)],
        deeds=_deeds(found),
        nonce=_nonce(),
        preview=shown,
        part=part,
        notice=notice,
        problem=problem,
    )
    return page, 409 if problem else 200


def _nonce() -> str:
    """A new one for each page, kept while that page refreshes itself: two clicks on it are one deed."""
    given = flask.request.args.get("nonce", "") if is_refresh() else ""
    return given if _NONCE.fullmatch(given) else secrets.token_urlsafe(16)


def _deeds(found: MessageView) -> set[str]:
    """What this person can do to the message now."""
    if not may(Role.SUPPORT):
        return set()
    states = {delivery.state for delivery in found.deliveries}
    gone = found.body_erased_at is not None or (found.has_secrets and found.erased_at is not None)
    deeds = {deed for deed in ("retry", "cancel", "settle") if states & TRANSITIONS[deed][0]}
    if State.SCHEDULED in states:  # what is queued is gone before a time could be typed
        deeds.add("reschedule")
    return (deeds - {"retry"}) if gone else deeds | {"resend"}


def _preview(id_: str) -> Preview | None:
    with services().store.read() as connection:
        data = message_rows.open_preview(connection, id_, services().store.sealer)
    return None if data is None else take_apart(data)


def _part(shown: Preview | None) -> str:
    part = flask.request.args.get("part", "")
    if part in ("html", "text", "source", "files"):
        return part
    return "text" if shown is not None and shown.html is None else "html"


@blueprint.get("/messages/<id_>/html")
@needs(Role.SUPPORT)
def message_html(id_: str) -> Answer:
    """The HTML part for the sandboxed frame: no script runs, no request leaves (UI1, UI2)."""
    shown = _preview(_look_up(id_).id)
    log.info("console.body_viewed", operator=person().id, message=id_, part="html")
    answer = flask.make_response(shown.html if shown and shown.html is not None else "")
    answer.content_type = "text/html; charset=utf-8"
    answer.headers["Content-Security-Policy"] = HTML_POLICY
    answer.headers["X-Frame-Options"] = "SAMEORIGIN"
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


# Deeds


@blueprint.post("/messages/<id_>/resend")
@needs(Role.SUPPORT)
def resend(id_: str) -> Answer:
    """Send it anew, with fresh secrets; ask first if several people would get it again."""
    found, nonce = _look_up(id_), flask.request.form.get("nonce", "")
    if len(found.deliveries) > 1 and flask.request.form.get("confirmed") != "yes":
        return flask.render_template("console/resend.html", m=found, nonce=nonce)
    try:
        new = outbox.resend(services(), id_, by=person().name, idempotency_key=nonce or None)
    except MailerError as exc:
        return _not_done(found, exc)
    done = "suppressed" if outbox.state(services(), new) is State.SUPPRESSED else "resent"
    return flask.redirect(flask.url_for("console.message", id_=new, done=done), 303)


@blueprint.post("/messages/<id_>/retry")
@needs(Role.SUPPORT)
def retry(id_: str) -> Answer:
    """Try again what failed, waits, or is uncertain."""
    return _do(id_, outbox.retry, "retried")


@blueprint.post("/messages/<id_>/cancel")
@needs(Role.SUPPORT)
def cancel(id_: str) -> Answer:
    """Withdraw what has not left."""
    return _do(id_, outbox.cancel, "cancelled")


@blueprint.route("/messages/<id_>/reschedule", methods=["GET", "POST"])
@needs(Role.SUPPORT)
def reschedule(id_: str) -> Answer:
    """Ask for another time to leave, in UTC as the form says, and set it."""
    found, form, problem = _look_up(id_), flask.request.form, None
    if flask.request.method == "POST":
        try:
            at = services().now() if form.get("now") else datetime.fromisoformat(form.get("at", ""))
            return _do(id_, partial(outbox.reschedule, send_at=at.replace(tzinfo=UTC)), "rescheduled")
        except ValueError:
            problem = "Write the time as 2027-01-31 08:30, in UTC."
    page = flask.render_template("console/reschedule.html", m=found, problem=problem, now=services().now())
    return page, 400 if problem else 200


@blueprint.post("/messages/<id_>/settle")
@needs(Role.SUPPORT)
def settle(id_: str) -> Answer:
    """Record what this person found out about an uncertain message: it arrived, or it did not."""
    outcome = State.SENT if flask.request.form.get("as") == State.SENT else State.FAILED
    return _do(id_, partial(outbox.settle, outcome=outcome), "settled")


def _do(id_: str, deed: Callable[..., int], done: str) -> Answer:
    found = _look_up(id_)
    try:
        deed(services(), id_, by=person().name)
    except MailerError as exc:
        return _not_done(found, exc)
    return flask.redirect(flask.url_for("console.message", id_=id_, done=done), 303)


def _not_done(found: MessageView, why: MailerError) -> Answer:
    if isinstance(why, StoreError | MessageNotFound):
        raise why
    said = str(why).removeprefix(f"message {found.id}: ")
    if isinstance(why, IdempotencyConflict):
        said = "this page is older than the message; reload it and try again"
    return _page(_look_up(found.id), problem=f"Not done: {said}.")
