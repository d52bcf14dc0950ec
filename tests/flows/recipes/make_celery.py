from celery import Celery
from flask import Flask, current_app

from mailer import Mailer, send_email  # new


def make_celery(app):
    celery = Celery(app.import_name, broker=app.config["CELERY_BROKER_URL"])
    celery.conf.update(app.config)

    class ContextTask(celery.Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)

    celery.Task = ContextTask
    return celery


app = Flask(__name__)
app.config["SITE"] = "Acme"
app.config["CELERY_BROKER_URL"] = "redis://localhost:6379"
app.config["MAILER_DEFAULT_SENDER"] = "Acme <no-reply@acme.example>"  # new
app.config.from_prefixed_env()

celery = make_celery(app)
mailer = Mailer(app, celery=celery)  # new: after make_celery


@celery.task
def greet(address):
    site = current_app.config["SITE"]
    send_email.delay(to=address, subject=f"Hello from {site}", text="A task of your own asked for this.")
