"""``mailer transports``: how the mail servers are doing, and pausing one of them."""

from __future__ import annotations

from datetime import datetime

import rich_click as click

from mailer import carriers
from mailer.carriers import PAUSED, WORKING, Carrier
from mailer.cli.group import as_json, click_context, mailer, operator_name, print_json, services
from mailer.telemetry import escape_controls


@mailer.group(invoke_without_command=True)
@as_json
def transports(json_: bool) -> None:
    """Show the transports: which work, which rest until when and why, and what they carried in an hour."""
    if click_context().invoked_subcommand is not None:
        return
    found = carriers.carriers(services())
    if json_:
        print_json([carrier.as_dict() for carrier in found])
        return
    click.echo(f"{'name':<24} {'state':<28} {'sent':>8} {'deferred':>8} {'failed':>8}  limits")
    for carrier in found:
        for line in _lines(carrier):
            click.echo(escape_controls(line))


def _lines(carrier: Carrier) -> list[str]:
    counts = carrier.carried
    numbers = f"{counts.sent:>8,} {counts.deferred:>8,} {counts.failed:>8,}"
    limits = " ".join(carriers.terms(carrier.routing, limits_only=True))
    lines = [f"{carrier.name:<24} {_state(carrier):<28} {numbers}  {limits}".rstrip()]
    if carrier.state != WORKING and carrier.why:
        lines.append(f"  {carrier.why}")
    if carrier.slow:
        lines.append(f"  slowed down, as their servers asked: {carriers.slowed(carrier)}")
    return lines


def _state(carrier: Carrier) -> str:
    if carrier.state == WORKING:
        return WORKING
    if carrier.state == PAUSED:
        return f"paused by {carrier.by}"
    return f"resting until {_time(carrier.until)}"


def _time(at: datetime | None) -> str:
    return f"{at:%H:%M:%S} UTC" if at else "later"


@transports.command()
@click.argument("name")
@click.option("--reason", default="", help="Why, for whoever looks.")
def pause(name: str, reason: str) -> None:
    """Let nothing through NAME until it is resumed; its mail goes by others, or waits."""
    carriers.pause(services(), name, by=operator_name(), why=reason)
    click.echo(f"{name} is paused. To use it again: mailer transports resume {name}")


@transports.command()
@click.argument("name")
def resume(name: str) -> None:
    """Use NAME again at once, whether it was paused or rests; what waits is due now."""
    click.echo("Done." if carriers.resume(services(), name) else f"{name} works already.")
