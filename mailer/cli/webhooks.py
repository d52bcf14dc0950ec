"""``mailer webhooks``: whom to tell of what becomes of mails."""

from __future__ import annotations

import rich_click as click

from mailer import webhooks
from mailer.cli.group import NOT_FOUND, as_json, click_context, mailer, print_json, services
from mailer.store import webhooks as rows
from mailer.store.webhooks import CallView, WebhookRow
from mailer.telemetry import escape_controls


@mailer.group("webhooks")
def group() -> None:
    """Endpoints that are told what becomes of mails."""


@group.command()
@click.argument("url")
@click.option(
    "--event",
    "types",
    multiple=True,
    type=click.Choice(list(webhooks.TYPES)),
    help="What to tell of; may be repeated. Without: everything.",
)
@click.option(
    "--project", help="Tell of mails that keys of this project asked for. Without: the application's."
)
@as_json
def create(url: str, types: tuple[str, ...], project: str | None, json_: bool) -> None:
    """Tell URL of events, and print the secret that signs them, this once."""
    made, secret = webhooks.create(services(), url, types, project=project)
    if json_:
        print_json({**described(made), "signing_secret": secret})
        return
    click.echo(secret)
    click.echo(f"Keep it now: it is not shown again. The webhook is {made.id}.", err=True)


@group.command("list")
@as_json
def list_(json_: bool) -> None:
    """List the endpoints, and how they do."""
    with services().store.read() as connection:
        known = rows.every(connection)
    if json_:
        print_json([described(webhook) for webhook in known])
        return
    for webhook in known:
        owner = webhook.project_name or "(the application)"
        click.echo(escape_controls(f"{webhook.id}  {_condition(webhook):<24} {owner:<16} {webhook.url}"))


@group.command()
@click.argument("webhook_id", metavar="ID")
@as_json
def rotate(webhook_id: str, json_: bool) -> None:
    """Make a new secret and print it; the old one signs as well for a day."""
    secret = webhooks.rotate(services(), _found(webhook_id))
    if json_:
        print_json({"id": webhook_id, "signing_secret": secret})
        return
    click.echo(secret)
    click.echo("Keep it now: it is not shown again.", err=True)


@group.command()
@click.argument("webhook_id", metavar="ID")
def enable(webhook_id: str) -> None:
    """Tell an endpoint again, also what waited."""
    webhooks.change(services(), _found(webhook_id).id, enabled=True)
    click.echo("Done.")


@group.command()
@click.argument("webhook_id", metavar="ID")
def disable(webhook_id: str) -> None:
    """Tell an endpoint nothing until it is enabled."""
    webhooks.change(services(), _found(webhook_id).id, enabled=False)
    click.echo("Done.")


@group.command()
@click.argument("webhook_id", metavar="ID")
def remove(webhook_id: str) -> None:
    """Forget an endpoint, and what it is owed."""
    webhook = _found(webhook_id)
    with services().store.begin() as connection:
        rows.remove(connection, webhook.id)
    click.echo("Done.")


@group.command()
@click.argument("webhook_id", metavar="ID")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@as_json
def calls(webhook_id: str, limit: int, json_: bool) -> None:
    """List what an endpoint was and is told, the newest event first."""
    webhook = _found(webhook_id)
    with services().store.read() as connection:
        found = rows.calls(connection, webhook.id, limit)
    if json_:
        print_json([call_described(call) for call in found])
        return
    for call in found:
        what = f"{call.event:>10}  {call.at:%Y-%m-%d %H:%M:%S}  {call.name:<12} {call.message}"
        click.echo(f"{what}  {_progress(call)}")


@group.command()
@click.argument("webhook_id", metavar="ID")
@click.option("--event", type=int, help="Its number, from calls. Without: all that failed.")
def replay(webhook_id: str, event: int | None) -> None:
    """Tell an endpoint once more."""
    webhook, found = _found(webhook_id), services()
    with found.store.begin() as connection:
        number = rows.again(connection, webhook.id, found.now(), event)
    if event is not None and not number:
        click.echo("mailer: no such event has ended; mailer webhooks calls shows them", err=True)
        click_context().exit(NOT_FOUND)
    click.echo(f"{number} to be told again.")


def _found(webhook_id: str) -> WebhookRow:
    with services().store.read() as connection:
        found = rows.find(connection, webhook_id)
    if found is None:
        click.echo("mailer: no webhook has this id; mailer webhooks list shows them", err=True)
        click_context().exit(NOT_FOUND)
    return found


def _condition(webhook: WebhookRow) -> str:
    if webhook.disabled_at is not None:
        return f"disabled: {webhook.disabled_why}"
    return f"failures in a row: {webhook.failures}" if webhook.failures else "works"


def _progress(call: CallView) -> str:
    if call.ended_at is not None:
        return f"told, {call.answer}" if (call.answer or "").startswith("2") else f"failed, {call.answer}"
    last = f", {call.answer}" if call.answer else ""
    return f"waits until {call.due_at:%H:%M:%S}, attempts: {call.attempts}{last}"


def described(webhook: WebhookRow) -> dict[str, object]:
    """JSON-able; without secrets."""
    dates = ("created_at", "disabled_at", "failing_since", "rest_until")
    return {
        "id": webhook.id,
        "project": webhook.project_name,
        "endpoint": webhook.url,
        "events": list(webhook.types),
        "status": "enabled" if webhook.disabled_at is None else "disabled",
        "disabled_why": webhook.disabled_why,
        "failures": webhook.failures,
        **{name: at.isoformat() if (at := getattr(webhook, name)) else None for name in dates},
    }


def call_described(call: CallView) -> dict[str, object]:
    """JSON-able."""
    return {
        "event": call.event,
        "name": call.name,
        "email_id": call.message,
        "at": call.at.isoformat(),
        "attempts": call.attempts,
        "due_at": None if call.ended_at else call.due_at.isoformat(),
        "ended_at": call.ended_at.isoformat() if call.ended_at else None,
        "answer": call.answer,
    }
