"""Commands that run something: dev, web, worker, and db."""

from __future__ import annotations

import rich_click as click

from mailer.cli.group import NOT_SET_UP, application, as_json, click_context, mailer, print_json, services
from mailer.heartbeat import consuming
from mailer.store import migrations
from mailer.store.workers import present


@mailer.command()
def dev() -> None:
    """Run everything in one process: web, worker, sweeper and an inbox. No server needed."""
    from mailer.dev import run

    run(click.echo)


@mailer.command()
@click.option(
    "--threads", default=8, show_default=True, type=click.IntRange(1, 256), help="Requests at once."
)
def web(threads: int) -> None:
    """Serve the web pages only; mails wait for a `mailer worker`."""
    from mailer.dev import WebServer
    from mailer.memory import count_what_comes

    app = application()
    settings = app.extensions["mailer"].settings
    with WebServer(app, settings.web_host, settings.web_port, threads) as server:
        count_what_comes()
        click.echo(f"Serving on {server.url}")
        server.wait()


@mailer.command()
def smtp() -> None:
    """Take mails by SMTP, with an API key as the password; they wait for a `mailer worker`."""
    from mailer.submission import serve

    serve(services(), click.echo)


@mailer.command()
@click.option(
    "--concurrency",
    "-c",
    default=4,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Batches at once in each process.",
)
@click.option(
    "--pool", type=click.Choice(["prefork", "threads", "solo"]), default="threads", show_default=True
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Workers to start: one a core.",
)
@click.option("--lanes", help="Serve only these: critical,default.")
@click.option("--once", is_flag=True, help="Send what is due, without a broker, and exit.")
def worker(concurrency: int, pool: str, processes: int, lanes: str | None, once: bool) -> None:
    """Send mails: consume wake-ups from MAILER_BROKER_URL until told to stop."""
    from mailer.supervisor import take_over
    from mailer.worker import check_broker, work, work_once

    app = application()
    if once:
        with app.app_context():
            made = work_once(app.extensions["mailer"])
            click.echo(f"Made {made} attempt{'' if made == 1 else 's'}.")
        return
    settings = app.extensions["mailer"].settings
    only = _known(lanes.split(","), settings.lane_names) if lanes else None
    if processes > 1:
        check_broker(app, "leave --processes out, or name a Redis")
        take_over(processes)
    code = work(app, concurrency=concurrency, pool=pool, log_level=settings.log_level, lanes=only)
    click_context().exit(code)


def _known(wanted: list[str], lanes: list[str]) -> list[str]:
    found = [name.strip() for name in wanted]
    if unknown := [name for name in found if name not in lanes]:
        raise click.UsageError(f"--lanes: {unknown[0]!r} is not one of {', '.join(lanes)}")
    return found


@mailer.command()
@as_json
def workers(json_: bool) -> None:
    """Show who works, and whether wake-ups reach them. Exit code 5 if none consumes."""
    found = services()
    with found.store.read() as connection:
        rows = present(connection)
    told = [(row, consuming(row, found.now())) for row in rows]
    if json_:
        print_json([{**row.as_dict(), "consuming": yes} for row, yes in told])
    for row, yes in [] if json_ else told:
        last = f"{row.consumed_at:%H:%M:%S}" if row.consumed_at else "never"
        words = "consuming" if yes else "not consuming"
        click.echo(
            f"{row.name:<32} {words:<14} since {row.started_at:%Y-%m-%d %H:%M}  "
            f"alive {row.seen_at:%H:%M:%S}  took a wake-up {last} UTC"
        )
    if not any(yes for _row, yes in told):
        click.echo("No worker consumes.", err=True)
        click_context().exit(NOT_SET_UP)


@mailer.group()
def db() -> None:
    """The store's tables."""


@db.command()
def upgrade() -> None:
    """Create the tables, or bring them up to this version."""
    migrations.upgrade(services().store.engine)
    click.echo(f"The store is at {migrations.head()}.")


@db.command()
def current() -> None:
    """Say which version the tables are at, and which this program wants."""
    with services().store.read() as connection:
        click.echo(f"{migrations.current(connection) or 'empty'} (wanted: {migrations.head()})")
