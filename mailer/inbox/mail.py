"""What the inbox knows of a mail without opening it: the line in a list."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime

from mailer.inbox.headers import Party, parse_addresses
from mailer.inbox.html import visible_text
from mailer.inbox.parsing import Content
from mailer.reading import decode_words

SNIPPET_CHARS = 250
MAX_SEARCH_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class Mail:
    """One received mail. ``bcc`` holds the envelope recipients that no header names.

    ``return_path`` and ``recipients`` are the envelope as SMTP had it; the rest is read from the headers.
    ``message_id`` is without angle brackets, ``size`` is in bytes, ``created_at`` is when it was received
    (UTC), and ``attachments`` counts what is neither text nor shown inline.
    """

    id: str
    message_id: str
    sender: Party
    to: tuple[Party, ...]
    cc: tuple[Party, ...]
    bcc: tuple[Party, ...]
    reply_to: tuple[Party, ...]
    subject: str
    snippet: str
    return_path: str
    recipients: tuple[str, ...]
    created_at: datetime
    size: int
    attachments: int
    read: bool = False

    def to_json(self) -> str:
        """Return what does not change while the mail is kept; the mailbox has columns for the rest."""
        fields = asdict(self)
        del fields["read"], fields["created_at"]
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str, *, created_at: datetime, read: bool) -> Mail:
        """Rebuild a mail from `to_json` and the columns beside it."""
        fields = json.loads(text)
        fields["sender"] = Party(**fields["sender"])
        for name in ("to", "cc", "bcc", "reply_to"):
            fields[name] = tuple(Party(**party) for party in fields[name])
        fields["recipients"] = tuple(fields["recipients"])
        return cls(**fields, created_at=created_at, read=read)


def summarise(
    content: Content, *, return_path: str, recipients: tuple[str, ...], size: int, received_at: datetime
) -> Mail:
    """Return the summary of a mail that arrived just now, under a new random id."""
    to, cc = parse_addresses(content.header("To")), parse_addresses(content.header("Cc"))
    senders = parse_addresses(content.header("From"))
    return Mail(
        id=secrets.token_hex(11),
        message_id=content.header("Message-ID").strip("<> ")[:998],
        sender=senders[0] if senders else Party(decode_words(content.header("From")), ""),
        to=to,
        cc=cc,
        bcc=_blind(parse_addresses(content.header("Bcc")), (*to, *cc), recipients),
        reply_to=parse_addresses(content.header("Reply-To")),
        subject=decode_words(content.header("Subject")),
        snippet=_snippet(content),
        return_path="" if return_path == "<>" else return_path,
        recipients=recipients,
        created_at=received_at,
        size=size,
        attachments=len(content.attachments),
    )


Parties = tuple[Party, ...]


def _blind(stated: Parties, shown: Parties, recipients: tuple[str, ...]) -> Parties:
    known = {party.address.casefold() for party in (*stated, *shown)}
    return stated + tuple(Party("", address) for address in recipients if address.casefold() not in known)


def _snippet(content: Content) -> str:
    words = " ".join(content.text[:4_000].split()) or visible_text(content.html[:50_000])
    return words if len(words) <= SNIPPET_CHARS else words[:SNIPPET_CHARS].rstrip() + "..."


def search_columns(mail: Mail, content: Content) -> dict[str, str]:
    """Return what each column of the search holds: case-folded text."""
    names = " ".join(part.filename for part in content.attachments)
    body = f"{content.text[:MAX_SEARCH_CHARS]} {visible_text(content.html[:MAX_SEARCH_CHARS])} {names}"
    columns = {
        "search_to": _fold(mail.to),
        "search_cc": _fold(mail.cc),
        "search_bcc": _fold(mail.bcc),
        "search_from": _fold((mail.sender,)),
        "search_reply_to": _fold(mail.reply_to),
        "search_subject": mail.subject.casefold(),
        "search_message_id": mail.message_id.casefold(),
        "search_text": " ".join(body.split()).casefold(),
    }
    return {name: _storable(text) for name, text in columns.items()}


def _fold(parties: tuple[Party, ...]) -> str:
    return "\n".join(f"{party.name} {party.address}".casefold() for party in parties)


def _storable(text: str) -> str:
    """SQLite takes neither lone surrogates nor is it happy with NUL inside text."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
