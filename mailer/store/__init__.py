"""The only SQL. `engine` connects, `models` names the tables, the rest are functions over a connection."""

from mailer.store.engine import Store, create_engine

__all__ = ["Store", "create_engine"]
