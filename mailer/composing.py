"""From a stored message to the bytes of a mail: its template rendered, its MIME built.

Once as they go out, and once as people may see them if anything in it is a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mailer import mime, rendering
from mailer.errors import MailerError, RenderError
from mailer.message import Message, contains_secret
from mailer.services import Services
from mailer.store.messages import Rendered


def compose(services: Services, message: Message, row: Mapping[str, Any]) -> Rendered:
    """Render a message and build its bytes. Raises RenderError, also if there are too many."""
    context = dict(message.context)
    provider = services.providers.get(message.template or "")
    if provider is not None:
        context |= _run_provider(provider.function, context)
    is_secret = contains_secret((context, message.text, message.html))
    revealed = rendering.revealed if is_secret else _as_it_is
    outgoing = _rendered(services, message, revealed(context), revealed)
    original = _build(message, row, outgoing)
    original = services.signer.sign(original, message.sender.domain, row["created_at"])
    if len(original) > services.settings.max_message_bytes:
        raise RenderError("the rendered mail exceeds MAILER_MAX_MESSAGE_BYTES; send a link instead")
    if not is_secret:
        return Rendered(original, None, outgoing.subject)
    shown = _rendered(services, message, rendering.masked(context), rendering.masked)
    return Rendered(original, _build(message, row, shown), shown.subject)


def _as_it_is(value: Any) -> Any:
    return value


def _run_provider(provider: Any, context: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(provider(context))
    except MailerError:
        raise
    except Exception as exc:  # a host's code: its values must not reach the log through its message
        raise RenderError(f"the context provider raised {type(exc).__name__}") from exc


def _rendered(services: Services, message: Message, context: Any, plain: Any) -> rendering.Rendered:
    if message.template is not None:
        made = services.templates.render(message.template, context, message.locale)
        return made if message.subject is None else rendering.Rendered(message.subject, made.text, made.html)
    html, text = plain(message.html), plain(message.text)
    if text is None and html is not None:
        text = rendering.text_of(html)
    return rendering.Rendered(message.subject or "", text, html)


def _build(message: Message, row: Mapping[str, Any], rendered: rendering.Rendered) -> bytes:
    return mime.build(
        message_id=row["message_id"],
        date=row["created_at"],
        sender=message.sender,
        to=message.to,
        cc=message.cc,
        reply_to=message.reply_to,
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        headers=message.headers,
        attachments=message.attachments,
    )
