"""Commands that run something: dev, web, worker, and db."""

from __future__ import annotations

import rich_click as click

from mailer.cli.group import application, click_context, mailer, services
from mailer.store import migrations


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

    app = application()
    settings = app.extensions["mailer"].settings
    with WebServer(app, settings.web_host, settings.web_port, threads) as server:
        click.echo(f"Serving on {server.url}")
        server.wait()


@mailer.command()
@click.option(
    "--concurrency", "-c", default=2, show_default=True, type=click.IntRange(1, 256), help="Mails at once."
)
@click.option(
    "--pool", type=click.Choice(["prefork", "threads", "solo"]), default="threads", show_default=True
)
@click.option("--once", is_flag=True, help="Send what is due, without a broker, and exit.")
def worker(concurrency: int, pool: str, once: bool) -> None:
    """Send mails: consume wake-ups from MAILER_BROKER_URL until told to stop."""
    from mailer.worker import work, work_once

    app = application()
    if once:
        with app.app_context():
            click.echo(f"Made {work_once(app.extensions['mailer'])} attempts.")
        return
    settings = app.extensions["mailer"].settings
    click_context().exit(work(app, concurrency=concurrency, pool=pool, log_level=settings.log_level))


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
