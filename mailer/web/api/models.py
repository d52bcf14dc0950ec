"""The shapes of requests and answers: they validate, and the specification is made from them.

Field names are Resend's (https://resend.com/docs/api-reference); lane, expires_at, on_uncertain and locale
are Mailer's own. What a request has besides is not refused, since stock clients send such fields, but named
in the answer's Mailer-Warning header.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_BATCH = 100
_MAX_LIST = 1_000

Byte = Annotated[int, Field(ge=0, le=255)]
Address = Annotated[str, Field(description="local@domain, or Name <local@domain>")]
Addresses = Address | Annotated[list[Address], Field(max_length=_MAX_LIST)]


class In(BaseModel):
    """A request, or a part of one: what it has besides is kept apart."""

    model_config = ConfigDict(extra="allow", strict=True)

    def unknown(self, path: str = "") -> Iterator[str]:
        """The names of what is not understood, those within lists and objects too."""
        yield from (path + name for name in self.model_extra or ())
        for name, value in self.__dict__.items():  # the fields that are understood
            if isinstance(value, In):
                yield from value.unknown(f"{path}{name}.")
            elif type(value) is list and value and isinstance(value[0], In):
                for place, item in enumerate(value):
                    yield from item.unknown(f"{path}{name}.{place}.")


class Buffer(In):
    """A Node Buffer as JSON.stringify writes it."""

    type: Literal["Buffer"]
    data: list[Byte]


class AttachmentIn(In):
    """A file: ``content``, or ``path``, a public https address that it is fetched from."""

    filename: str | None = None
    content: str | list[Byte] | Buffer | None = Field(
        None, description="Base64, numbers from 0 to 255, or a Node Buffer."
    )
    path: str | None = None
    content_type: str | None = None
    content_id: str | None = Field(None, description='Makes it an inline image, shown by src="cid:…".')


class TagIn(In):
    """Kept with the message as metadata."""

    name: str
    value: str


class TemplateIn(In):
    """A template of the application, by its name, with what it needs."""

    id: str
    variables: dict[str, Any] | None = None


class EmailIn(In):
    """A message to send: ``subject`` with ``html`` or ``text``, or a ``template``."""

    from_: Address | None = Field(None, alias="from", description="May be left out with a template.")
    to: Addresses
    subject: str | None = None
    cc: Addresses | None = None
    bcc: Addresses | None = None
    reply_to: Addresses | None = None
    html: str | None = None
    text: str | None = None
    template: TemplateIn | None = None
    headers: dict[str, str] | None = None
    scheduled_at: str | None = Field(
        None, description='ISO 8601 with a zone, or "in 5 minutes", "tomorrow at 9am", "Friday at 3pm ET".'
    )
    attachments: list[AttachmentIn] | None = None
    tags: list[TagIn] | None = None
    lane: str | None = None
    expires_at: str | None = Field(None, description="Not sent after this; written as scheduled_at.")
    on_uncertain: Literal["retry", "hold"] | None = None
    locale: str | None = None


class BatchIn(BaseModel):
    """From 1 to 100 messages."""

    emails: list[Any] = Field(min_length=1, max_length=MAX_BATCH)


class Reschedule(In):
    """Another time to leave."""

    scheduled_at: str


class PreviewIn(In):
    """Values for a template; without any, its own examples."""

    variables: dict[str, Any] | None = None
    locale: str | None = None


class KeyIn(In):
    """A key to make, of the same project."""

    name: str
    scopes: list[Literal["send", "read", "read_bodies", "suppressions", "admin"]] | None = None
    domains: list[str] | None = Field(None, description="Sender domains it may use; empty: any.")
    test: bool = Field(False, description="Its mail goes to no provider.")
    expires_at: str | None = None


class SuppressionIn(In):
    """Addresses that are to get no mail from this project."""

    address: str | Annotated[list[str], Field(min_length=1, max_length=MAX_BATCH)]
    cause: Literal["manual", "bounce", "complaint"] = "manual"
    detail: str | None = Field(None, max_length=500, description="For whoever looks.")


class ListQuery(BaseModel):
    """A page: the newest, what follows ``after`` (older), or what stands before ``before`` (newer)."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100)
    after: str | None = None
    before: str | None = None


# Answers


class Error(BaseModel):
    """What went wrong, by Resend's names."""

    statusCode: int
    name: str
    message: str


class Id(BaseModel):
    id: str


class Object(BaseModel):
    object: Literal["email"]
    id: str


class BatchError(BaseModel):
    index: int
    message: str


class BatchOut(BaseModel):
    data: list[Id]
    errors: list[BatchError] | None = None


class TagOut(BaseModel):
    name: str
    value: str


class EmailRow(BaseModel):
    """A message in a list. ``reply_to`` is null there: it stands in what is sealed."""

    id: str
    message_id: str
    to: list[str]
    from_: str = Field(alias="from")
    created_at: str
    subject: str | None
    bcc: list[str]
    cc: list[str]
    reply_to: list[str] | None
    last_event: str
    scheduled_at: str | None
    tags: list[TagOut]
    labels: list[str]


class EmailOut(EmailRow):
    """A message. ``html`` and ``text`` are null without the scope read_bodies, and once they were erased."""

    object: Literal["email"]
    html: str | None
    text: str | None


class EmailList(BaseModel):
    object: Literal["list"]
    has_more: bool
    data: list[EmailRow]


class EventOut(BaseModel):
    model_config = ConfigDict(extra="allow")

    at: str
    name: str


class EventList(BaseModel):
    object: Literal["list"]
    has_more: bool
    data: list[EventOut]


class TemplateOut(BaseModel):
    id: str
    name: str


class TemplateList(BaseModel):
    object: Literal["list"]
    has_more: bool
    data: list[TemplateOut]


class PreviewOut(BaseModel):
    object: Literal["template_preview"]
    subject: str
    html: str | None
    text: str | None


class KeyOut(BaseModel):
    id: str
    name: str
    prefix: str
    project: str
    scopes: list[str]
    domains: list[str]
    test: bool
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewKey(KeyOut):
    """``token`` is the key itself. It is shown this once."""

    token: str


class KeyList(BaseModel):
    object: Literal["list"]
    has_more: bool
    data: list[KeyOut]


class Deleted(BaseModel):
    object: Literal["api_key"]
    id: str
    deleted: Literal[True]


class SuppressionOut(BaseModel):
    """An entry. ``address`` is null once the person was forgotten, and they still get no mail."""

    object: Literal["suppression"]
    id: str
    address: str | None
    cause: Literal["manual", "bounce", "complaint"]
    detail: str | None
    created_at: str
    by: str
    email_id: str | None


class SuppressionList(BaseModel):
    object: Literal["list"]
    has_more: bool
    data: list[SuppressionOut]


class SuppressionDeleted(BaseModel):
    object: Literal["suppression"]
    id: str
    deleted: Literal[True]
