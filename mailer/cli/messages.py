"""Commands about messages: send, list, show, resend, retry, cancel, preview, check-address."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import rich_click as click

from mailer import outbox
from mailer.address import Address
from mailer.attachment import Attachment
from mailer.broker import is_memory
from mailer.cli.group import (
    BAD_INPUT,
    DONE,
    NOT_FOUND,
    NOT_SENT,
    UNDER_WAY,
    application,
    as_json,
    click_context,
    mailer,
    operator_name,
    print_json,
    services,
)
from mailer.delivery import deliver
from mailer.errors import InvalidAddress, InvalidMessage, MessageNotFound
from mailer.replies import explained
from mailer.services import Services
from mailer.states import FINAL, State
from mailer.store import queries
from mailer.telemetry import escape_controls

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"])


@mailer.command()
@click.argument("template", required=False)
@click.option("--to", multiple=True, required=True, help="Recipient; may be repeated.")
@click.option("--cc", multiple=True, help="Carbon copy; may be repeated.")
@click.option("--bcc", multiple=True, help="Blind copy; may be repeated.")
@click.option("--sender", help="Sender, instead of MAILER_DEFAULT_SENDER.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="A template's variable, as text.")
@click.option("--context", help="All variables as one JSON object.")
@click.option("--subject", help="Subject; needed without a template.")
@click.option("--text", help="Text body, instead of a template.")
@click.option("--html", help="HTML body, instead of a template.")
@click.option(
    "--attach", multiple=True, type=click.Path(exists=True, dir_okay=False), help="A file to attach."
)
@click.option("--locale", help="Language of the mail: de, pt-BR.")
@click.option("--lane", help="critical, default or bulk.")
@click.option("--in", "countdown", type=float, help="Seconds to wait before sending.")
@click.option("--expires-in", type=float, help="Seconds after which it must not be sent any more.")
@click.option("--idempotency-key", help="The same key never sends twice.")
@click.option("--tag", "tags", multiple=True, help="A word to find it by.")
@click.option("--wait", is_flag=True, help="Wait for the outcome and show it.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait at most.")
@as_json
def send(
    values: tuple[str, ...], context: str | None, attach: tuple[str, ...], wait: bool, timeout: float,
    json_: bool, **fields: Any,
) -> None:  # fmt: skip
    """Send TEMPLATE, or a text given here, and say its id."""
    app = application()
    found: Services = app.extensions["mailer"]
    attachments = [Attachment.from_path(path) for path in attach]
    with app.app_context():
        task = app.extensions["mailer.send_email"]
        accepted = task.delay(
            fields.pop("template"),
            context=_context(values, context),
            attachments=attachments,
            session=None,
            **{name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()},
        )
    if wait:
        _deliver_if_alone(app, found, accepted.id)
        outbox.wait(found, accepted.id, timeout)
        _show(found, accepted.id, json_)
        click_context().exit(_outcome(outbox.state(found, accepted.id)))
    if json_:
        print_json({"id": accepted.id})
    else:
        click.echo(accepted.id)


def _context(values: tuple[str, ...], context: str | None) -> dict[str, Any]:
    try:
        given = json.loads(context) if context else {}
    except ValueError:
        raise InvalidMessage("--context", 'is not JSON; write --context \'{"name": "Ada"}\'') from None
    if not isinstance(given, dict):
        raise InvalidMessage("--context", "is not a JSON object")
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise InvalidMessage("--set", "is not of the form NAME=VALUE")
        given[name] = text
    return given


def _deliver_if_alone(app: Any, found: Services, id_: str) -> None:
    """With the broker in memory no worker can hear of it in time: make the first attempt here.

    Safe beside a running `mailer dev`: whoever claims it first sends it.
    """
    if is_memory(str(app.extensions["mailer.send_email"].app.conf.broker_url or "")):
        with app.app_context():
            deliver(found, id_)


def _outcome(state: State) -> int:
    if state is State.SENT:
        return DONE
    return NOT_SENT if state in FINAL else UNDER_WAY


@mailer.command("list")
@click.argument("text", required=False)
@click.option(
    "--state", type=click.Choice([s.value for s in State]), help="Only with a recipient in this state."
)
@click.option("--template", help="Only of this template.")
@click.option("--lane", help="Only of this lane.")
@click.option("--tag", help="Only with this tag.")
@click.option("--since", type=MOMENT, help="Accepted then or later, in UTC; a date is its beginning.")
@click.option("--until", type=MOMENT, help="Accepted before that, in UTC.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Most to list.")
@click.option("--before", help="Continue after the last id of the page before.")
@as_json
def list_(
    text: str | None, state: str | None, since: datetime | None, until: datetime | None, limit: int,
    json_: bool, **narrowed: Any,
) -> None:  # fmt: skip
    """List messages, newest first; TEXT finds a recipient, subject, template or id."""
    first, end = (at and at.replace(tzinfo=UTC) for at in (since, until))
    chosen = State(state) if state else None
    wanted = queries.Search(text=text, state=chosen, since=first, until=end, limit=limit, **narrowed)
    with services().store.read() as connection:
        found = queries.search(connection, wanted)
    if json_:
        print_json([message.as_dict() for message in found])
    elif found or found.looked_back_to:
        _list(found)
    else:
        click.echo("No messages.")
    _say_how_far(found, json_)


def _list(found: queries.Found) -> None:
    for message in found:
        people = message.deliveries[0].recipient + (", …" if len(message.deliveries) > 1 else "")
        line = (
            f"{message.id}  {message.created_at:%Y-%m-%d %H:%M:%S}  {message.state:<10} "
            f"{people:<32} {message.subject or message.template or ''}"
        )
        click.echo(escape_controls(line))


def _say_how_far(found: queries.Found, json_: bool) -> None:
    """On standard error, so that a list stays one: it is not the whole of it, and how to go on."""
    if (back := found.looked_back_to) is None:
        return
    if json_:
        click.echo(json.dumps({"looked_back_to": back.isoformat(), "before": found.next}), err=True)
        return
    click.echo(
        f"mailer: looked through mails back to {back:%Y-%m-%d %H:%M:%S} UTC only; "
        f"go on with --before {found.next}, or narrow it with --since and --until",
        err=True,
    )


@mailer.command()
@click.argument("id_", metavar="ID")
@as_json
def show(id_: str, json_: bool) -> None:
    """Show one message: its recipients, the servers' words, and its timeline."""
    _show(services(), id_, json_)


def _show(found: Services, id_: str, json_: bool) -> None:
    with found.store.read() as connection:
        message = queries.show(connection, id_)
    if message is None:
        raise MessageNotFound(f"no message has the id {id_!r}")
    if json_:
        print_json(_with_meanings(message.as_dict()))
        return
    lines = [
        f"{message.state.value.upper()}  {_title(message)}",
        f"  id          {message.id}",
        f"  Message-ID  {message.message_id}",
        f"  template    {message.template or '-'}    lane {message.lane}",
        f"  accepted    {message.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "",
    ]
    for d in message.deliveries:
        words = " ".join(str(part) for part in (d.code, d.reply) if part)
        doubt = f", {d.unknowns} without an answer to the text" if d.unknowns else ""
        lines.append(f"  {d.state:<10}  {d.recipient} ({d.kind}), attempt {d.attempts}{doubt}  {words}")
    if message.body_erased_at:
        lines.append(f"  what it said was erased {message.body_erased_at:%Y-%m-%d %H:%M:%S} UTC")
    lines.append("")
    for event in message.events:
        told = "  ".join(f"{key}={value}" for key, value in event.data.items() if key != "transcript")
        lines.append(f"  {event.at:%H:%M:%S}.{event.at.microsecond // 1000:03d}  {event.name:<12} {told}")
        if meaning := explained(event.data):
            lines.append(f"{'':29}{meaning.sentence()}")
        lines += [f"{'':29}{line}" for line in event.data.get("transcript", ())]
    for line in lines:
        click.echo(escape_controls(line))


def _with_meanings(shown: dict[str, Any]) -> dict[str, Any]:
    """Add what servers' answers mean. It is not in the store: the tables may know better by now."""
    for event in shown["events"]:
        if meaning := explained(event):
            event |= {"means": meaning.sentence(), "suppress_candidate": meaning.suppress}
    return shown


def _title(message: queries.MessageView) -> str:
    return message.subject or ("(erased)" if message.body_erased_at else "(not rendered yet)")


@mailer.command()
@click.argument("id_", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait for the outcome and show it.")
@as_json
def resend(id_: str, wait: bool, json_: bool) -> None:
    """Send a message anew, with fresh secrets, and say the new message's id."""
    app = application()
    found: Services = app.extensions["mailer"]
    with app.app_context():
        new = outbox.resend(found, id_, by=operator_name())
    if wait:
        _deliver_if_alone(app, found, new)
        outbox.wait(found, new, 60)
        _show(found, new, json_)
        click_context().exit(_outcome(outbox.state(found, new)))
    if json_:
        print_json({"id": new, "resent_from": id_})
    else:
        click.echo(new)
    if outbox.state(found, new) is State.SUPPRESSED:
        click.echo("mailer: not sent: the recipient is on the suppression list", err=True)


@mailer.command()
@click.argument("id_", metavar="ID")
def retry(id_: str) -> None:
    """Try again now what failed or waits."""
    click.echo(f"Queued again for {outbox.retry(services(), id_, by=operator_name())} recipient(s).")


@mailer.command()
@click.argument("id_", metavar="ID")
def cancel(id_: str) -> None:
    """Withdraw a message that has not left."""
    click.echo(f"Cancelled for {outbox.cancel(services(), id_, by=operator_name())} recipient(s).")


@mailer.command()
@click.argument("id_", metavar="ID")
@click.option(
    "--at",
    type=click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"]),
    help="The time, in UTC: 2027-01-31T08:30.",
)
@click.option("--in", "countdown", type=click.FloatRange(min=0), help="Seconds from now; 0 sends it at once.")
def reschedule(id_: str, at: datetime | None, countdown: float | None) -> None:
    """Give a message that was not tried yet another time to leave."""
    if (at is None) == (countdown is None):
        raise click.UsageError("give one of --at and --in")
    found = services()
    when = found.now() + timedelta(seconds=countdown or 0) if at is None else at.replace(tzinfo=UTC)
    changed = outbox.reschedule(found, id_, send_at=when, by=operator_name())
    click.echo(f"Waits until {when:%Y-%m-%d %H:%M:%S} UTC for {changed} recipient(s).")


@mailer.command()
@click.argument("id_", metavar="ID")
@click.option(
    "--as",
    "outcome",
    required=True,
    type=click.Choice(["sent", "failed"]),
    help="What you found out about it.",
)
def settle(id_: str, outcome: str) -> None:
    """Say what became of an uncertain message, whose text went out and whose answer was lost."""
    changed = outbox.settle(services(), id_, outcome=State(outcome), by=operator_name())
    click.echo(f"Settled as {outcome} for {changed} recipient(s).")


@mailer.command()
@click.argument("template", required=False)
@click.option(
    "--set", "values", multiple=True, metavar="NAME=VALUE", help="Instead of a value in preview.json."
)
@click.option("--locale", help="Language: de, pt-BR.")
@click.option(
    "--part", type=click.Choice(["subject", "text", "html", "json"]), default="text", show_default=True
)
def preview(template: str | None, values: tuple[str, ...], locale: str | None, part: str) -> None:
    """Render TEMPLATE with its sample values; without TEMPLATE, list the templates."""
    app = application()
    templates = app.extensions["mailer"].templates
    with app.app_context():
        if template is None:
            click.echo("\n".join(templates.names()))
            return
        context = {**templates.preview_context(template, locale), **_context(values, None)}
        made = templates.render(template, context, locale)
    if part == "json":
        print_json({"subject": made.subject, "text": made.text, "html": made.html})
        return
    shown = getattr(made, part)
    if shown is None:
        click.echo(f"mailer: the template has no {part}", err=True)
        click_context().exit(NOT_FOUND)
    click.echo(shown)


@mailer.command("check-address")
@click.argument("address")
def check_address(address: str) -> None:
    """Say ok if ADDRESS can be mailed to, or why not."""
    try:
        Address.parse(address, "address")
    except InvalidAddress as exc:
        click.echo(escape_controls(exc.problem))
        click_context().exit(BAD_INPUT)
    click.echo("ok")
