"""Statements of the busiest paths, compiled once for each dialect.

SQLAlchemy looks at a statement and at every value each time it runs one: for a small insert that takes
longer than the database does. These are given to the driver as they were compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Connection, CursorResult, Dialect

Rows = Sequence[Mapping[str, Any]]


class Prepared:
    """A statement whose parameters always have the same names, and which returns nothing."""

    def __init__(self, statement: sa.Insert | sa.Update, names: Sequence[str] | None = None) -> None:
        """``names`` are the columns of an insert that gives some of them only."""
        self._statement, self._names = statement, names
        # By the dialect itself: an application's own engine may have another driver, or writer of JSON.
        self._by_dialect: WeakKeyDictionary[Dialect, _Compiled] = WeakKeyDictionary()

    def run(self, connection: Connection, rows: Rows) -> CursorResult[Any]:
        """Execute it with each of the rows; every name must be in each."""
        dialect = connection.dialect
        compiled = self._by_dialect.get(dialect)
        if compiled is None:
            compiled = self._by_dialect[dialect] = _Compiled(self._statement, self._names, dialect)
        parameters = compiled.parameters(rows)
        return connection.exec_driver_sql(compiled.text, parameters[0] if len(rows) == 1 else parameters)


class _Compiled:
    """The text for a driver, and what makes its parameters of ours."""

    def __init__(
        self, statement: sa.Insert | sa.Update, names: Sequence[str] | None, dialect: Dialect
    ) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=None if names is None else list(names))
        self.text = str(compiled)
        writers: dict[str, Callable[[Any], Any] | None] = {}
        self._fixed: dict[str, Any] = {}  # what the statement says itself
        for name, bind in compiled.binds.items():
            write = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if bind.required:
                writers[name] = write
            else:
                self._fixed[name] = bind.value if write is None else write(bind.value)
        self._by_position = compiled.positiontup is not None
        self._names = tuple(compiled.positiontup or compiled.binds)
        self._writers = [(name, writers.get(name)) for name in self._names]

    def parameters(self, rows: Rows) -> list[Any]:
        """The rows as the driver takes them: in the order of the statement's marks, or by name."""
        return [self._row(row) for row in rows]

    def _row(self, row: Mapping[str, Any]) -> Any:
        if self._fixed:
            row = {**row, **self._fixed}
        written = [row[name] if write is None else write(row[name]) for name, write in self._writers]
        return tuple(written) if self._by_position else dict(zip(self._names, written, strict=True))
