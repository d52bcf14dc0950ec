"""Statements that ask nothing, sent to Postgres together with the commit that ends them.

Every statement of a transaction waits for its answer, and that wait is most of what a small one costs. From
where a transaction has nothing more to ask, libpq's pipeline sends the rest in one go
(https://www.postgresql.org/docs/current/libpq-pipeline-mode.html). What fails among them fails the commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy.engine import Connection

_ROOM = "mailer_pipeline"


@contextmanager
def room(connection: Connection) -> Iterator[None]:
    """Around a transaction of ours: lets `rest_together` begin a pipeline that ends after the commit."""
    with ExitStack() as pipeline:
        connection.info[_ROOM] = pipeline
        try:
            yield
        finally:
            connection.info.pop(_ROOM, None)


def rest_together(connection: Connection) -> None:
    """Say that no answer is needed to any statement from here to the commit.

    A caller's own transaction, which nobody here commits, goes on as it is.
    """
    pipeline: ExitStack | None = connection.info.pop(_ROOM, None)
    begin = getattr(connection.connection.dbapi_connection, "pipeline", None)
    if pipeline is not None and begin is not None:
        pipeline.enter_context(begin())
