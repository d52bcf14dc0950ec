"""django-post-office, tuned: two processes of its command, 1,000 mails to a batch, 8 threads, little log.

It renders when it queues; with Jinja and the same templates as everybody here. SQLite has a write-ahead log,
is fully synchronous and takes its write lock first, as it should be run.

As a program: ``python -m bench.post_office migrate``, and ``work``, which runs the command again and again.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import django
import jinja2
from django.conf import settings

from bench.order import SENDER, SUBJECT, TEMPLATES, order


def database(url: str) -> dict[str, Any]:
    """Django's settings for a URL of SQLAlchemy's."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        options = {"init_command": pragmas, "transaction_mode": "IMMEDIATE", "timeout": 30}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path[1:], "OPTIONS": options}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "USER": parts.username,
        "HOST": parse_qs(parts.query)["host"][0],
        "CONN_MAX_AGE": None,
    }


settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "post_office"],
    DATABASES={"default": database(os.environ["BENCH_DATABASE"])},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DEFAULT_FROM_EMAIL=SENDER,
    EMAIL_BACKEND="post_office.EmailBackend",
    EMAIL_HOST="127.0.0.1",
    EMAIL_PORT=int(os.environ.get("BENCH_SMTP_PORT", "0")),
    EMAIL_USE_TLS="BENCH_USER" in os.environ,
    EMAIL_HOST_USER=os.environ.get("BENCH_USER", ""),
    EMAIL_HOST_PASSWORD=os.environ.get("BENCH_PASSWORD", ""),
    POST_OFFICE={
        "BATCH_SIZE": 1_000,
        "THREADS_PER_PROCESS": 8,
        "LOG_LEVEL": 1,
        "MESSAGE_ID_ENABLED": True,
        "BATCH_DELIVERY_TIMEOUT": 600,
        "BACKENDS": {"default": "django.core.mail.backends.smtp.EmailBackend"},
    },
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    USE_TZ=True,
    LOGGING={"version": 1, "disable_existing_loggers": False},
)
django.setup()

from django.core.management import call_command  # noqa: E402  (only after setup)
from post_office import mail  # noqa: E402

_templates = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, auto_reload=False)


def send(number: int, to: str) -> None:
    """Queue one mail."""
    context = order(number)
    mail.send(
        to,
        subject=SUBJECT.format(number=context["order"]["number"]),
        message=_templates.get_template("email/order/body.txt").render(context),
        html_message=_templates.get_template("email/order/body.html").render(context),
    )


def work() -> None:
    """Send what is queued with two processes, then look again."""
    print("ready", flush=True)
    while True:
        call_command("send_queued_mail", processes=2, log_level=1)
        time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "migrate":
        call_command("migrate", verbosity=0)
    else:
        work()
