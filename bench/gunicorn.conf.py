"""How gunicorn serves Mailer: see docs/how-to/run-in-production.md."""

from pathlib import Path
from typing import Any

from mailer.memory import count_what_comes

if Path("/dev/shm").is_dir():  # it writes a sign of life there, several times a second
    worker_tmp_dir = "/dev/shm"


def post_worker_init(worker: Any) -> None:
    """Everything is loaded: Python need not look through it for garbage."""
    count_what_comes()
