"""The shapes of requests and answers about webhooks; see `mailer.web.api.models`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mailer.web.api.models import In


class WebhookIn(In):
    """Where to tell of which events."""

    endpoint: str = Field(description="A public https address.")
    events: Annotated[list[str], Field(min_length=1)] = Field(description="Such as email.sent.")


class WebhookChange(In):
    """What is given is written."""

    endpoint: str | None = None
    events: Annotated[list[str], Field(min_length=1)] | None = None
    status: Literal["enabled", "disabled"] | None = None


class CallsQuery(BaseModel):
    """A page, the newest event first; ``after``: what is older than that one."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100)
    after: int | None = Field(None, ge=0, lt=2**63)


# Answers


class WebhookOut(BaseModel):
    id: str
    created_at: str
    status: Literal["enabled", "disabled"]
    endpoint: str
    events: list[str]
    disabled_why: str | None
    failures: int


class OneWebhook(WebhookOut):
    object: Literal["webhook"]
    signing_secret: str


class NewWebhook(BaseModel):
    object: Literal["webhook"]
    id: str
    signing_secret: str


class WebhookRef(BaseModel):
    object: Literal["webhook"]
    id: str


class WebhookGone(WebhookRef):
    deleted: Literal[True]


class WebhookList(BaseModel):
    object: Literal["list"]
    has_more: bool
    data: list[WebhookOut]


class CallOut(BaseModel):
    """``answer`` is the status of the last attempt, or a word for why there is none."""

    event: int
    name: str
    email_id: str
    at: str
    attempts: int
    ended_at: str | None
    answer: str | None


class CallList(BaseModel):
    object: Literal["list"]
    has_more: bool
    data: list[CallOut]


class Replayed(BaseModel):
    object: Literal["webhook_call"]
    event: int
