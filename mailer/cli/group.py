"""The command group, how it finds its application, and how errors become exit codes."""

from __future__ import annotations

import getpass
import json
import sys
from typing import Any

import flask
import rich_click as click
from flask.cli import ScriptInfo

from mailer.config import Settings
from mailer.errors import ConfigError, InvalidMessage, MailerError, MessageNotFound, StoreError
from mailer.services import Services
from mailer.telemetry import configure_logging, escape_controls

DONE, NOT_SENT, BAD_INPUT, NOT_FOUND, WRONG_STATE, NOT_SET_UP, UNDER_WAY = range(7)

_EXIT_CODES: list[tuple[type[MailerError], int]] = [
    (InvalidMessage, BAD_INPUT),
    (MessageNotFound, NOT_FOUND),
    (ConfigError, NOT_SET_UP),
    (StoreError, NOT_SET_UP),
    (MailerError, WRONG_STATE),
]


class PlainErrors(click.RichGroup):
    """A group whose commands end with one line and an exit code instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MailerError as exc:
            click.echo(f"mailer: {escape_controls(str(exc))}", err=True)
            ctx.exit(next(code for kind, code in _EXIT_CODES if isinstance(exc, kind)))


@click.group(cls=PlainErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mailer-dispatcher", prog_name="mailer")
def mailer() -> None:
    """Transactional email that is never lost.

    Try it: `mailer dev`. Settings come from the environment and .env; .env.example names them all.
    """


def main() -> None:
    """The entry point of the ``mailer`` command."""
    try:
        configure_logging(Settings.load().log_level)
    except ConfigError as exc:
        click.echo(f"mailer: {exc}", err=True)
        sys.exit(NOT_SET_UP)
    mailer(prog_name="mailer")


def click_context() -> click.Context:
    """The context of the command that runs."""
    context = click.get_current_context()
    assert context is not None
    return context


def application() -> flask.Flask:
    """The host's application under ``flask mailer``, else the service."""
    info = click_context().find_object(ScriptInfo)
    if info is not None:
        return info.load_app()
    from mailer.app import create_app  # here, so that `mailer --help` opens no database

    return create_app()


def services() -> Services:
    """The services of the application this command works on."""
    from mailer.extension import services_of

    return services_of(application())


as_json = click.option("--json", "json_", is_flag=True, help="Print JSON for programs.")


def operator_name() -> str:
    """Who uses the command line, for timelines."""
    try:
        return f"{getpass.getuser()} (shell)"
    except (KeyError, OSError):  # no such user, as in some containers
        return "shell"


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
