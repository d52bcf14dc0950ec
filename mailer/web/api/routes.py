"""Every endpoint: its method, path, scope and shapes. Requests are let in and described by this one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from mailer.keys import Scope
from mailer.web.api import emails, keys, models, suppressions, templates, webhooks
from mailer.web.api import webhook_models as hooks


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` as Flask writes it. No endpoint is without a scope: what the key lacks is denied."""

    method: str
    path: str
    view: Callable[..., dict[str, Any]]
    scope: Scope
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    status: int = 200

    @property
    def name(self) -> str:
        """The endpoint's, unique."""
        return f"{self.view.__module__.rpartition('.')[2]}_{self.view.__name__}"


_KEYED = ("Idempotency-Key",)

ROUTES = (
    Route("POST", "/emails", emails.send, Scope.SEND, models.Id, models.EmailIn, headers=_KEYED),
    Route(
        "POST",
        "/emails/batch",
        emails.send_batch,
        Scope.SEND,
        models.BatchOut,
        models.BatchIn,
        headers=("Idempotency-Key", "x-batch-validation"),
    ),
    Route("GET", "/emails", emails.get_many, Scope.READ, models.EmailList, query=models.ListQuery),
    Route("GET", "/emails/<id_>", emails.get, Scope.READ, models.EmailOut),
    Route("PATCH", "/emails/<id_>", emails.reschedule, Scope.SEND, models.Object, models.Reschedule),
    Route("POST", "/emails/<id_>/cancel", emails.cancel, Scope.SEND, models.Object),
    Route("POST", "/emails/<id_>/resend", emails.resend, Scope.SEND, models.Id, headers=_KEYED),
    Route("GET", "/emails/<id_>/events", emails.events, Scope.READ, models.EventList),
    Route("GET", "/templates", templates.get_many, Scope.READ, models.TemplateList),
    Route(
        "POST",
        "/templates/<path:name>/preview",
        templates.preview,
        Scope.READ,
        models.PreviewOut,
        models.PreviewIn,
    ),
    Route("GET", "/keys", keys.get_many, Scope.ADMIN, models.KeyList),
    Route("POST", "/keys", keys.create, Scope.ADMIN, models.NewKey, models.KeyIn, status=201),
    Route("DELETE", "/keys/<id_>", keys.revoke, Scope.ADMIN, models.Deleted),
    Route("GET", "/webhooks", webhooks.get_many, Scope.ADMIN, hooks.WebhookList),
    Route(
        "POST",
        "/webhooks",
        webhooks.create,
        Scope.ADMIN,
        hooks.NewWebhook,
        hooks.WebhookIn,
        status=201,
    ),
    Route("GET", "/webhooks/<id_>", webhooks.get, Scope.ADMIN, hooks.OneWebhook),
    Route(
        "PATCH",
        "/webhooks/<id_>",
        webhooks.change,
        Scope.ADMIN,
        hooks.WebhookRef,
        hooks.WebhookChange,
    ),
    Route("DELETE", "/webhooks/<id_>", webhooks.remove, Scope.ADMIN, hooks.WebhookGone),
    Route("POST", "/webhooks/<id_>/rotate", webhooks.rotate, Scope.ADMIN, hooks.NewWebhook),
    Route(
        "GET",
        "/webhooks/<id_>/calls",
        webhooks.calls,
        Scope.ADMIN,
        hooks.CallList,
        query=hooks.CallsQuery,
    ),
    Route(
        "POST",
        "/webhooks/<id_>/calls/<int:event>/replay",
        webhooks.replay,
        Scope.ADMIN,
        hooks.Replayed,
    ),
    Route(
        "GET",
        "/suppressions",
        suppressions.get_many,
        Scope.SUPPRESSIONS,
        models.SuppressionList,
        query=models.ListQuery,
    ),
    Route(
        "POST",
        "/suppressions",
        suppressions.add,
        Scope.SUPPRESSIONS,
        models.SuppressionList,
        models.SuppressionIn,
        status=201,
    ),
    Route("GET", "/suppressions/<path:which>", suppressions.get, Scope.SUPPRESSIONS, models.SuppressionOut),
    Route(
        "DELETE",
        "/suppressions/<path:which>",
        suppressions.remove,
        Scope.SUPPRESSIONS,
        models.SuppressionDeleted,
    ),
)
