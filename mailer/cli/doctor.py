"""``mailer doctor``: what is wrong with this set-up, and what to do about it."""

from __future__ import annotations

import flask
import rich_click as click
from flask.cli import ScriptInfo

from mailer.cli.group import DONE, NOT_SET_UP, as_json, click_context, mailer, print_json
from mailer.doctor import Finding, Level, error, examine
from mailer.errors import MailerError
from mailer.telemetry import escape_controls

_MARKS = {Level.OK: "✓", Level.WARNING: "!", Level.ERROR: "✗"}


@mailer.command()
@as_json
def doctor(json_: bool) -> None:
    """Check settings, store and broker; exit with 5 if something must not stay as it is."""
    findings = _findings()
    if json_:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            click.echo(_line(finding))
    failed = any(finding.level is Level.ERROR for finding in findings)
    click_context().exit(NOT_SET_UP if failed else DONE)


def _findings() -> list[Finding]:
    try:
        app = _application()
    except MailerError as exc:
        return [error("settings", str(exc), "correct it and ask again; nothing else could be looked at")]
    return examine(app)


def _application() -> flask.Flask:
    """The host's application, or as much of the service as the checks need: no pages and no migration."""
    info = click_context().find_object(ScriptInfo)
    if info is not None:
        # Else Flask's command line would replace the debug flag that a web server will find.
        info.set_debug_flag = False
        return info.load_app()
    from mailer.extension import Mailer

    app = flask.Flask("mailer", template_folder=None, static_folder=None)
    Mailer(app)
    return app


def _line(finding: Finding) -> str:
    step = f". Next: {finding.next}" if finding.next else ""
    return escape_controls(f"{_MARKS[finding.level]} {finding.name}: {finding.found}{step}")
