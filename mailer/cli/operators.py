"""``mailer user``: who may enter the console."""

from __future__ import annotations

import rich_click as click

from mailer import operators, second_factor
from mailer.cli.group import as_json, mailer, print_json, services
from mailer.store import operators as rows
from mailer.telemetry import escape_controls


@mailer.group()
def user() -> None:
    """People of the console."""


@user.command()
@click.argument("name")
@click.option(
    "--role", type=click.Choice([r.value for r in operators.Role]), default="support", show_default=True
)
@click.option("--password", is_flag=True, help="Ask for a password; without, they enter by one-time links.")
def create(name: str, role: str, password: bool) -> None:
    """Add NAME and print a link that lets that person in once."""
    found = services()
    secret = click.prompt("Password", hide_input=True, confirmation_prompt=True) if password else None
    operators.create_operator(found, name, role, secret)
    click.echo(operators.make_login_link(found, name))


@user.command()
@click.argument("name")
def link(name: str) -> None:
    """Print a link that lets NAME in once, within 15 minutes."""
    click.echo(operators.make_login_link(services(), name))


@user.command()
@click.argument("name")
def password(name: str) -> None:
    """Ask for a new password for NAME; ends that person's sessions."""
    secret = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    operators.set_password(services(), name, secret)
    click.echo("Done.")


@user.command("reset-2fa")
@click.argument("name")
def reset_2fa(name: str) -> None:
    """Turn the second factor of NAME off, whose app is lost; ends that person's sessions."""
    was_on = second_factor.reset(services(), name)
    click.echo("Done. The log-in asks for no code." if was_on else "It was off already.")


@user.command("list")
@as_json
def list_(json_: bool) -> None:
    """List who may enter, and as what."""
    with services().store.read() as connection:
        people = rows.all_operators(connection)
    if json_:
        print_json([{"name": p.name, "role": p.role, "disabled": p.disabled_at is not None} for p in people])
        return
    for person in people:
        state = "disabled" if person.disabled_at else ""
        click.echo(escape_controls(f"{person.name:<30} {person.role:<8} {state}".rstrip()))
