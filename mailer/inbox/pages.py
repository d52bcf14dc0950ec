"""The pages: the list, and one mail under its tabs. Server-rendered, no scripts, nothing from elsewhere."""

from __future__ import annotations

from datetime import datetime

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_wtf.csrf import CSRFError  # type: ignore[import-untyped]
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WerkzeugResponse

from mailer.inbox.api import mailbox, open_mail, part_response, raw_response
from mailer.inbox.guard import PREVIEW_POLICY, SANDBOX
from mailer.inbox.html import find_links, linkify, preview
from mailer.inbox.parsing import safe_filename
from mailer.reading import decode_words

PAGE_SIZE = 50
TABS = ("html", "text", "source", "headers", "attachments", "links")
SOURCE_CHARS = 500_000

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def show_list() -> str:
    """The mails, newest first, or those that match ``q``."""
    query = request.args.get("q", "").strip()
    start = max(0, request.args.get("start", 0, type=int))
    page = mailbox().page(query, start=min(start, 1_000_000), limit=PAGE_SIZE)
    return render_template(
        "inbox/list.html", page=page, totals=mailbox().totals(), query=query, start=start, size=PAGE_SIZE
    )


@blueprint.get("/mail/<mail_id>")
@blueprint.get("/mail/<mail_id>/<any(html,text,source,headers,attachments,links):tab>")
def show_mail(mail_id: str, tab: str = "") -> str:
    """One mail under one tab: the HTML if there is any, or else the text. The id may be ``latest``."""
    mail, content = open_mail(mail_id)
    mailbox().mark_read([mail.id])
    tab = tab or ("html" if content.html else "text")
    return render_template(
        "inbox/mail.html",
        mail=mail,
        content=content,
        tab=tab,
        tabs=_tabs(len(content.attachments) + len(content.inline), len(links := find_links(content))),
        links=links,
        source=_source(mail.id) if tab == "source" else "",
        sandbox=SANDBOX,
    )


@blueprint.get("/mail/<mail_id>/preview")
def show_preview(mail_id: str) -> Response:
    """The mail's HTML for the frame, under a policy that forbids scripts and requests (UI1)."""
    _, content = open_mail(mail_id)
    response = make_response(preview(content))
    response.content_type = "text/html; charset=utf-8"
    response.headers["Content-Security-Policy"] = PREVIEW_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@blueprint.get("/mail/<mail_id>/part/<part_id>")
def download_part(mail_id: str, part_id: str) -> Response:
    """One attachment, always as a download (UI8)."""
    return part_response(mail_id, part_id)


@blueprint.get("/mail/<mail_id>/raw")
def download_mail(mail_id: str) -> Response:
    """The mail as a file other mail programs open."""
    return raw_response(mail_id, download=True)


@blueprint.post("/mail/<mail_id>/delete")
def delete_mail(mail_id: str) -> WerkzeugResponse:
    """Delete one mail."""
    mailbox().delete([mail_id])
    flash("The mail was deleted.")
    return redirect(url_for("pages.show_list"))


@blueprint.post("/delete")
def delete_all() -> WerkzeugResponse:
    """Delete all mails, or those that match the search the button stood beside."""
    query = request.form.get("q", "").strip()
    mailbox().delete([mail.id for mail in mailbox().messages(query)] if query else None)
    flash("The mails that matched were deleted." if query else "All mails were deleted.")
    return redirect(url_for("pages.show_list"))


@blueprint.app_errorhandler(HTTPException)
def show_error(error: HTTPException) -> tuple[str, int]:
    """A page that says what is wrong and leads back."""
    return render_template("inbox/error.html", error=error), error.code or 500


@blueprint.app_errorhandler(CSRFError)
def show_stale_form(error: CSRFError) -> tuple[str, int]:
    """A form from before a restart, or without its cookie: nothing was changed."""
    error.description = "This form is too old to be trusted. Go back, reload the page and try again."
    return show_error(error)


def install(app: Flask) -> None:
    """Give the templates what they format with."""
    app.jinja_env.filters.update(
        linkify=linkify, words=decode_words, bytes=human_size, clock=clock, filename=safe_filename
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


def human_size(size: int) -> str:
    """Return a number of bytes in words: ``"512 B"``, ``"1.5 kB"``, ``"24.0 MB"`` (powers of 1,000)."""
    if size < 1_000:
        return f"{size} B"
    return f"{size / 1_000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"


def clock(instant: datetime, now: datetime | None = None) -> str:
    """Return the local time of day for today's instants, and the date for older ones."""
    local, today = instant.astimezone(), (now or datetime.now().astimezone()).date()
    if local.date() == today:
        return local.strftime("%H:%M:%S")
    return local.strftime("%-d %b" if local.year == today.year else "%-d %b %Y")


def _tabs(files: int, links: int) -> list[tuple[str, str, int]]:
    counts = {"attachments": files, "links": links}
    names = {"html": "HTML"}
    return [(tab, names.get(tab, tab.capitalize()), counts.get(tab, 0)) for tab in TABS]


def _source(mail_id: str) -> str:
    raw = mailbox().raw(mail_id)
    if raw is None:
        abort(404)
    text = raw[:SOURCE_CHARS].decode("utf-8", "replace")
    return text if len(raw) <= SOURCE_CHARS else f"{text}\n\n[… cut here; download the mail to see all of it]"
