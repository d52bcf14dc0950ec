"""The JSON API, in the shape of Mailpit's version 1, so that existing test helpers work.

Field names are Mailpit's (as of its version 1.20), including the capital letters. What the inbox does not
have (tags, users) is present and empty. Errors are ``{"Error": "…"}`` with 400, 403 or 404. Two deliberate
differences: parts are always served as downloads, and a body that is no JSON is an error, not "delete all".
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from flask import Blueprint, Response, abort, current_app, jsonify, request, send_file
from werkzeug.exceptions import HTTPException

from mailer.inbox.guard import FILE_POLICY
from mailer.inbox.headers import Party, parse_date
from mailer.inbox.mail import Mail
from mailer.inbox.mailbox import Mailbox, Page
from mailer.inbox.parsing import Content, Part, safe_filename
from mailer.reading import decode_words

DEFAULT_LIMIT = 50
MAX_LIMIT = 5_000

blueprint = Blueprint("api", __name__)
Json = dict[str, Any]


@blueprint.get("/api/v1/messages")
def list_messages() -> Response:
    """The newest mails, a page of them: ``start`` (from 0) and ``limit``."""
    return _listing("")


@blueprint.get("/api/v1/search")
def search_messages() -> Response:
    """The mails that match ``query``; see `mailer.inbox.search` for its grammar."""
    return _listing(_required_query())


@blueprint.delete("/api/v1/search")
def delete_found_messages() -> Response:
    """Delete every mail that matches ``query``."""
    mailbox().delete(mail.id for mail in mailbox().messages(_required_query()))
    return _ok()


@blueprint.delete("/api/v1/messages")
def delete_messages() -> Response:
    """Delete the mails in the body's ``IDs``, or all of them when there is no body or no ids."""
    mailbox().delete(_ids(_body()) or None)
    return _ok()


@blueprint.put("/api/v1/messages")
def mark_messages() -> Response:
    """Set the body's ``Read`` (default false) on the mails in ``IDs``, on those of ``Search``, or on all."""
    body = _body()
    ids, query, read = _ids(body), body.get("Search", ""), body.get("Read", False)
    if not isinstance(read, bool) or not isinstance(query, str):
        abort(400, "Read must be true or false, and Search a string")
    if query:
        ids = [mail.id for mail in mailbox().messages(query)]
        mailbox().mark_read(ids, read=read)
    else:
        mailbox().mark_read(ids or None, read=read)
    return _ok()


@blueprint.get("/api/v1/message/<mail_id>")
def get_message(mail_id: str) -> Response:
    """One mail with its texts and parts; it counts as read from then on. The id may be ``latest``."""
    mail, content = open_mail(mail_id)
    mailbox().mark_read([mail.id])
    return jsonify(_message(mail, content))


@blueprint.get("/api/v1/message/<mail_id>/headers")
def get_headers(mail_id: str) -> Response:
    """Every header by its canonical name, each with the list of its values."""
    _, content = open_mail(mail_id)
    headers: dict[str, list[str]] = {}
    for name, value in content.headers:
        headers.setdefault("-".join(word.capitalize() for word in name.split("-")), []).append(value)
    return jsonify(headers)


@blueprint.get("/api/v1/message/<mail_id>/raw")
def get_raw(mail_id: str) -> Response:
    """The mail as it was received, byte for byte; as a file when ``dl=1``."""
    return raw_response(mail_id, download=request.args.get("dl") == "1")


@blueprint.get("/api/v1/message/<mail_id>/part/<part_id>")
def get_part(mail_id: str, part_id: str) -> Response:
    """The content of one attachment or inline part."""
    return part_response(mail_id, part_id)


@blueprint.get("/api/v1/info")
def info() -> Response:
    """What this is, and how much it holds."""
    totals = mailbox().totals()
    return jsonify(
        Version="mailer-inbox",
        LatestVersion="mailer-inbox",
        Database=mailbox().path,
        DatabaseSize=totals.size,
        Messages=totals.mails,
        Unread=totals.unread,
        Tags={},
    )


@blueprint.get("/livez")
@blueprint.get("/readyz")
def healthy() -> Response:
    """200 as soon as requests are answered and the mailbox can be read."""
    mailbox().totals()
    return _ok()


@blueprint.errorhandler(HTTPException)
def as_json(error: HTTPException) -> tuple[Response, int]:
    """Answer errors in JSON, as the rest of the API does."""
    return jsonify(Error=error.description), error.code or 500


# -- shared with the pages


def mailbox() -> Mailbox:
    """Return the mailbox of the current application."""
    box: Mailbox = current_app.extensions["mailer_mailbox"]
    return box


def open_mail(mail_id: str) -> tuple[Mail, Content]:
    """Return a mail and its content, or answer 404."""
    mail = mailbox().get(mail_id)
    content = mailbox().content(mail.id) if mail else None
    if mail is None or content is None:
        abort(404, "No such mail in the inbox")
    return mail, content


def raw_response(mail_id: str, *, download: bool) -> Response:
    """Answer with the source of a mail as plain text."""
    mail = mailbox().get(mail_id)
    raw = mailbox().raw(mail.id) if mail else None
    if mail is None or raw is None:
        abort(404, "No such mail in the inbox")
    response = Response(raw, content_type="text/plain; charset=utf-8")
    response.headers["Content-Security-Policy"] = FILE_POLICY
    if download:
        response.headers.set("Content-Disposition", "attachment", filename=f"{mail.id}.eml")
    return response


def part_response(mail_id: str, part_id: str) -> Response:
    """Answer with a part as a download of no particular type: the browser shows nothing of it."""
    _, content = open_mail(mail_id)
    part = content.part(part_id)
    if part is None:
        abort(404, "No such part in the mail")
    response = send_file(
        BytesIO(part.data),
        mimetype="application/octet-stream",
        as_attachment=True,
        download_name=safe_filename(part),
    )
    response.headers["Content-Security-Policy"] = FILE_POLICY
    return response


# -- shapes


def _listing(query: str) -> Response:
    start, limit = _number("start", 0), min(_number("limit", DEFAULT_LIMIT), MAX_LIMIT)
    page: Page = mailbox().page(query, start=start, limit=limit)
    totals = mailbox().totals()
    return jsonify(
        total=totals.mails,
        unread=totals.unread,
        count=len(page.mails),
        messages_count=page.matching,
        messages_unread=page.matching_unread,
        start=start,
        tags=[],
        messages=[_summary(mail) for mail in page.mails],
    )


def _summary(mail: Mail) -> Json:
    return {
        **_common(mail),
        "Read": mail.read,
        "Created": _rfc3339(mail.created_at),
        "Attachments": mail.attachments,
        "Snippet": mail.snippet,
    }


def _message(mail: Mail, content: Content) -> Json:
    return {
        **_common(mail),
        "ReturnPath": mail.return_path,
        "Date": _rfc3339(parse_date(content.header("Date")) or mail.created_at),
        "ListUnsubscribe": _list_unsubscribe(content),
        "Text": content.text,
        "HTML": content.html,
        "Inline": [_attachment(part) for part in content.inline],
        "Attachments": [_attachment(part) for part in content.attachments],
    }


def _common(mail: Mail) -> Json:
    return {
        "ID": mail.id,
        "MessageID": mail.message_id,
        "From": _party(mail.sender),
        "To": [_party(party) for party in mail.to],
        "Cc": [_party(party) for party in mail.cc],
        "Bcc": [_party(party) for party in mail.bcc],
        "ReplyTo": [_party(party) for party in mail.reply_to],
        "Subject": mail.subject,
        "Username": "",
        "Tags": [],
        "Size": mail.size,
    }


def _party(party: Party) -> Json:
    return {"Name": party.name, "Address": party.address}


def _attachment(part: Part) -> Json:
    return {
        "PartID": part.part_id,
        "FileName": part.filename,
        "ContentType": part.content_type,
        "ContentID": part.content_id,
        "Size": len(part.data),
        "Checksums": {"SHA256": part.sha256},
    }


def _list_unsubscribe(content: Content) -> Json:
    header = decode_words(content.header("List-Unsubscribe"))
    return {
        "Header": header,
        "Links": re.findall(r"<([^<>]{1,2000})>", header),
        "Errors": "",
        "HeaderPost": content.header("List-Unsubscribe-Post"),
    }


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- requests


def _number(name: str, default: int) -> int:
    text = request.args.get(name, "")
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else default


def _required_query() -> str:
    query = request.args.get("query", "").strip()
    if not query:
        abort(400, "no search query")
    return query


def _body() -> Json:
    data = request.get_data()
    if not data.strip():
        return {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        abort(400, "the body is no JSON")
    if not isinstance(body, dict):
        abort(400, "the body must be a JSON object")
    return body


def _ids(body: Json) -> list[str]:
    ids = body.get("IDs") or []
    if not isinstance(ids, list) or not all(isinstance(mail_id, str) for mail_id in ids):
        abort(400, "IDs must be a list of strings")
    return ids


def _ok() -> Response:
    return Response("ok", content_type="text/plain; charset=utf-8")
