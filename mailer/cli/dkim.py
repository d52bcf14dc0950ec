"""``mailer dkim``: keys that sign mails, and the DNS records that let others check them."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from mailer.cli.group import mailer, services
from mailer.dkim import SETTING, Signer, make_key


@mailer.group()
def dkim() -> None:
    """Keys that sign mails (DKIM)."""


@dkim.command()
@click.argument("domain")
@click.option("--selector", required=True, help="Tells one key of a domain from another: s2026.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where to write the private key.")
@click.option(
    "--ed25519", is_flag=True, help="A short key for a second signature; not all receivers know it."
)
def new(domain: str, selector: str, out: Path, ed25519: bool) -> None:
    """Make a key for DOMAIN, and say which DNS record and which setting go with it."""
    path = out.resolve()
    try:
        make_key(path, ed25519=ed25519)
    except FileExistsError:
        raise click.UsageError(f"--out: {path} is there already; name another file") from None
    except OSError as exc:
        raise click.UsageError(f"--out: {path} cannot be written: {exc.strerror}") from None
    entry = f"{domain}:{selector}:{path}"
    try:
        (key,) = Signer.load([entry]).keys
    except Exception:
        path.unlink()
        raise
    click.echo(f"1. Publish this TXT record in DNS:\n\n{key.host}\n{key.record()}\n")
    click.echo(f"2. Then set:\n\n{SETTING}={entry}")


@dkim.command()
def show() -> None:
    """The DNS records that belong to the keys in use."""
    keys = services().signer.keys
    for key in keys:
        click.echo(f"{key.host}\n{key.record()}\n")
    if not keys:
        click.echo("Mails are not signed here. Make a key with: mailer dkim new")
