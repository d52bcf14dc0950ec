"""The recipe as the tutorials write it: Flask, Celery, Flask-Mail; one task, one connection, one mail.

With ``BENCH_KEPT=1`` each worker process keeps its connection. Settings come from the environment, as
`bench.contenders` sets them.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task
from flask import Flask, render_template
from flask_mail import Connection, Mail, Message

from bench.order import SENDER, SUBJECT, TEMPLATES

flask_app = Flask(__name__, template_folder=str(TEMPLATES))
flask_app.config.update(
    MAIL_SERVER="127.0.0.1",
    MAIL_PORT=int(os.environ["BENCH_SMTP_PORT"]),
    MAIL_USE_TLS="BENCH_USER" in os.environ,
    MAIL_USERNAME=os.environ.get("BENCH_USER"),
    MAIL_PASSWORD=os.environ.get("BENCH_PASSWORD"),
    MAIL_DEFAULT_SENDER=SENDER,
)
mail = Mail(flask_app)


class ContextTask(Task):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with flask_app.app_context():
            return self.run(*args, **kwargs)


celery = Celery(__name__, broker=os.environ["BENCH_REDIS"], task_cls=ContextTask)
celery.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@celery.task
def send_email(to: str, context: dict[str, Any]) -> None:
    message = Message(SUBJECT.format(number=context["order"]["number"]), recipients=[to])
    message.body = render_template("email/order/body.txt", **context)
    message.html = render_template("email/order/body.html", **context)
    connection = kept() if "BENCH_KEPT" in os.environ else None
    if connection is None:
        mail.send(message)
    else:
        connection.send(message)


_kept: Connection | None = None


def kept() -> Connection:
    """The connection of this process."""
    global _kept
    if _kept is None:
        _kept = mail.connect()
        _kept.__enter__()
    return _kept
