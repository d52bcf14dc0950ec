"""``mailer suppress``: addresses that get no mail, whatever is sent to them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import rich_click as click

from mailer import suppressions
from mailer.cli.group import (
    NOT_FOUND,
    as_json,
    click_context,
    mailer,
    operator_name,
    print_json,
    services,
)
from mailer.services import Services
from mailer.suppressions import MOST_AT_ONCE, Cause, Entry, Wanted
from mailer.telemetry import escape_controls


@mailer.group("suppress")
def group() -> None:
    """Addresses that get no mail, whatever is sent to them."""


_project = click.option("--project", help="Whose list, by its name. Without: the application's own.")


@group.command()
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@_project
@click.option(
    "--cause", type=click.Choice([cause.value for cause in Cause]), default=Cause.MANUAL.value,
    show_default=True, help="Why.",
)  # fmt: skip
@click.option("--detail", help="The same in words, for whoever looks.")
@as_json
def add(addresses: tuple[str, ...], project: str | None, cause: str, detail: str | None, json_: bool) -> None:
    """Put each ADDRESS on the list. One that is there already stays as it is."""
    found = services()
    of, listed = _id_of(found, project), list[Entry]()
    for start in range(0, len(addresses), MOST_AT_ONCE):
        some = addresses[start : start + MOST_AT_ONCE]
        listed += suppressions.add(found, some, by=operator_name(), project=of, cause=cause, detail=detail)
    if json_:
        print_json([_described(entry) for entry in listed])
        return
    for entry in listed:
        click.echo(_line(entry))


@group.command()
@click.argument("which", metavar="ADDRESS|ID")
@_project
def remove(which: str, project: str | None) -> None:
    """Take an address off the list; from now on it gets mail again."""
    found = services()
    gone = suppressions.remove(found, which, by=operator_name(), project=_id_of(found, project))
    if gone is None:
        _say_not_listed()
    else:
        click.echo("Done. What was suppressed stays so; mailer resend sends it again.")


@group.command()
@click.argument("which", metavar="ADDRESS|ID")
@_project
@as_json
def check(which: str, project: str | None, json_: bool) -> None:
    """Say whether an address is on the list, and why. Exit code 3 if it is not."""
    found = services()
    entry = suppressions.find(found, which, project=_id_of(found, project))
    if entry is None:
        _say_not_listed()
    elif json_:
        print_json(_described(entry))
    else:
        click.echo(_line(entry))


@group.command("list")
@_project
@click.option("--search", help="A part of the address.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--after", metavar="ID", help="Go on behind this entry.")
@as_json
def list_(project: str | None, search: str | None, limit: int, after: str | None, json_: bool) -> None:
    """List who is on it, the newest first."""
    found = services()
    wanted = Wanted(_id_of(found, project), text=search, limit=limit, after=after)
    listed, more = suppressions.page(found, wanted)
    if json_:
        print_json([_described(entry) for entry in listed])
        return
    for entry in listed:
        click.echo(_line(entry))
    if more:
        click.echo(f"There are more: --after {listed[-1].id}", err=True)


def _id_of(found: Services, project: str | None) -> str | None:
    return None if project is None else suppressions.project_of(found, project)


def _say_not_listed() -> None:
    click.echo("mailer: it is not on this suppression list", err=True)
    click_context().exit(NOT_FOUND)


def _line(entry: Entry) -> str:
    words = [
        entry.id,
        f"{entry.created_at:%Y-%m-%d %H:%M}",
        f"{entry.cause:<9}",
        entry.address or "(forgotten)",
        f"by {entry.by}",
        entry.detail or "",
    ]
    return escape_controls("  ".join(words).rstrip())


def _described(entry: Entry) -> dict[str, object]:
    values = asdict(entry).items()
    return {name: at.isoformat() if isinstance(at, datetime) else at for name, at in values}
