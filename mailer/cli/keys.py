"""``mailer keys``: who may use the HTTP API."""

from __future__ import annotations

from datetime import timedelta

import rich_click as click

from mailer import keys
from mailer.cli.group import NOT_FOUND, as_json, click_context, mailer, print_json, services
from mailer.store import keys as rows
from mailer.store.keys import KeyRow
from mailer.telemetry import escape_controls


@mailer.group("keys")
def group() -> None:
    """Keys of the HTTP API."""


@group.command()
@click.argument("name")
@click.option(
    "--project", default=keys.DEFAULT_PROJECT, show_default=True, help="Whose messages it sees; made if new."
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in keys.Scope]),
    help="What it may do; may be repeated. Without: send and read.",
)
@click.option("--domain", "domains", multiple=True, help="A sender domain it may use; without, any.")
@click.option("--days", type=click.FloatRange(0, 3650, min_open=True), help="It ends after so many days.")
@click.option("--test", is_flag=True, help="Its mail goes to no provider.")
@as_json
def create(
    name: str, project: str, scopes: tuple[str, ...], domains: tuple[str, ...], days: float | None,
    test: bool, json_: bool,
) -> None:  # fmt: skip
    """Make a key and print it, this once."""
    found = services()
    made, token = keys.create(
        found,
        name,
        project=project,
        scopes=scopes or keys.DEFAULT_SCOPES,
        domains=domains,
        is_test=test,
        expires_at=None if days is None else found.now() + timedelta(days=days),
    )
    if json_:
        print_json({**_described(made), "token": token})
        return
    click.echo(token)
    click.echo("Keep it now: it is not shown again.", err=True)


@group.command("list")
@as_json
def list_(json_: bool) -> None:
    """List the keys of all projects, the newest first."""
    found = services()
    with found.store.read() as connection:
        known = rows.all_keys(connection)
    if json_:
        print_json([_described(key) for key in known])
        return
    for key in known:
        state = "revoked" if key.revoked_at else "" if key.is_good(found.now()) else "over"
        used = f"used {key.used_at:%Y-%m-%d %H:%M}" if key.used_at else "never used"
        line = (
            f"{key.id}  {key.prefix}…  {key.project_name:<16} {key.name:<20} {','.join(key.scopes)}  {used}"
        )
        click.echo(escape_controls(f"{line} {'test ' if key.is_test else ''}{state}".rstrip()))


@group.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Close the key with this ID for good; within a second it opens nothing."""
    if not keys.revoke(services(), key_id):
        click.echo("mailer: no open key has this id; mailer keys list shows them", err=True)
        click_context().exit(NOT_FOUND)
    click.echo("Done.")


def _described(key: KeyRow) -> dict[str, object]:
    instants = ("created_at", "expires_at", "revoked_at", "used_at")
    dates = {name: at.isoformat() if (at := getattr(key, name)) else None for name in instants}
    return {
        "id": key.id,
        "project": key.project_name,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "domains": list(key.domains),
        "test": key.is_test,
        **dates,
    }
