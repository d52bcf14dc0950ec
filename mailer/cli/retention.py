"""Commands about what is kept: purge, forget, and db reseal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import rich_click as click

from mailer import retention
from mailer.address import Address, masked
from mailer.cli.group import (
    NOT_SET_UP,
    UNDER_WAY,
    as_json,
    click_context,
    mailer,
    operator_name,
    print_json,
    services,
)
from mailer.cli.run import db
from mailer.errors import InvalidMessage
from mailer.retention import Forgotten, Told


@mailer.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and keep it.")
@as_json
def purge(dry_run: bool, json_: bool) -> None:
    """Erase now what need not be kept any longer; workers do so all the time."""
    found = services()
    if dry_run:
        done = retention.overdue(found)
    else:
        with _progress("rows") as told:
            done = retention.tidy_all(found, told=told)
    if json_:
        print_json({**asdict(done), "dry_run": dry_run})
        return
    click.echo(
        f"{'Would release' if dry_run else 'Released'} {done.keys} idempotency key(s), "
        f"erase{'' if dry_run else 'd'} {done.bodies} bodies and "
        f"remove{'' if dry_run else 'd'} {done.messages} message(s)."
    )


@mailer.command()
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def forget(address: str, yes: bool, json_: bool) -> None:
    """Take ADDRESS out of every table: cancel, erase, and put a pseudonym in its place."""
    parsed, found = Address.parse(address, "address"), services()
    if not yes:
        _confirm(masked(parsed.addr_spec))
    with _progress("messages") as told:
        done = retention.forget(found, parsed.addr_spec, by=operator_name(), told=told)
    if json_:
        print_json(done.as_dict())
    else:
        for line in _told(done):
            click.echo(line)
    if not done.complete:
        click_context().exit(UNDER_WAY)


def _confirm(shown: str) -> None:
    if not _asks():
        raise InvalidMessage("--yes", "is needed where nobody can be asked")
    question = f"Forget {shown}? What has not left is cancelled, what was said is erased. No way back."
    click.confirm(question, abort=True, err=True)


def _asks() -> bool:
    return sys.stdin.isatty()


def _told(done: Forgotten) -> Iterator[str]:
    yield f"{done.pseudonym} stands in {done.messages} message(s) now."
    yield f"Cancelled {done.cancelled}, erased {done.bodies} bodies and {done.accounts} account(s)."
    if done.suppressed:
        yield f"It stays on {done.suppressed} suppression list(s), without the address: no mail goes to it."
    if done.leaving:
        yield f"{done.leaving} message(s) are leaving for this address right now. Run it again in a minute."
    if done.waiting:
        yield (
            f"{done.waiting} message(s) are under way to others, who get them as they are. "
            "Run it again when those have ended."
        )
    if done.as_sender:
        yield f"It is the sender of {done.as_sender} message(s). That stays: it is the application's own."
    if done.as_operator:
        yield f"It is the name of {done.as_operator} person(s) of the console. That stays."


@db.command()
@as_json
def reseal(json_: bool) -> None:
    """Seal everything with the first key of MAILER_SECRET_KEYS, so that the others can be removed."""
    with _progress("messages") as told:
        done = retention.reseal(services(), told=told)
    if json_:
        print_json(asdict(done))
    else:
        click.echo(f"Resealed {done.messages} message(s) and {done.second_factors} second factor(s).")
    if done.left:
        why = "MAILER_SECRET_KEYS lacks their key, or they were altered"
        click.echo(f"mailer: {done.left} could not be opened: {why}", err=True)
        click_context().exit(NOT_SET_UP)


@contextmanager
def _progress(what: str) -> Iterator[Told]:
    """A counter on a terminal; nothing where a program reads."""
    seen = sys.stderr.isatty()

    def told(number: int) -> None:
        if seen:
            click.echo(f"\r{number:,} {what}", nl=False, err=True)

    yield told
    if seen:
        click.echo(err=True)
