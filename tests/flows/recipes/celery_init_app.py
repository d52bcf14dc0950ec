from celery import Celery, Task, shared_task
from flask import Flask, current_app

from mailer import Mailer, send_email  # new

mailer = Mailer()  # new


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(
        SITE="Acme",
        CELERY={"broker_url": "redis://localhost", "task_ignore_result": True},
        MAILER_DEFAULT_SENDER="Acme <no-reply@acme.example>",  # new
    )
    app.config.from_prefixed_env()
    celery_init_app(app)
    mailer.init_app(app)  # new: after celery_init_app
    return app


def celery_init_app(app: Flask) -> Celery:
    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


@shared_task
def greet(address: str) -> None:
    site = current_app.config["SITE"]
    send_email.delay(to=address, subject=f"Hello from {site}", text="A task of your own asked for this.")


flask_app = create_app()
celery_app = flask_app.extensions["celery"]
