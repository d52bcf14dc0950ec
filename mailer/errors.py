"""Every exception this package raises on purpose, one class per decision a caller can make.

::

    MailerError
    ├── ConfigError            a setting is wrong: fix the named setting and start again
    ├── InvalidMessage         the call is wrong: fix the named field (also a ValueError)
    │   ├── InvalidAddress     … an address: ask the person for another one
    │   ├── InvalidTemplate    … the template or its context: fix the code
    │   └── MessageTooLarge    … the size: send a link instead of the file
    ├── IdempotencyConflict    the key was used for other content: use a new key
    ├── MessageNotFound        no message with that id: check the id
    ├── WrongState             the message has moved on: look at it, then decide
    ├── SecretErased           cannot be sent again as it was: call ``send_email.delay`` anew
    ├── BodyErased             its content is gone, by policy or request: call ``send_email.delay`` anew
    ├── RenderError            the worker could not make the mail: the message ends as failed
    ├── StoreError             the database does not answer or has no tables: nothing was accepted
    └── NobodyListens          the broker in memory has no worker here: never leaves the package

The text of an error carries no address, token, subject or password: it ends up in logs and trackers.
"""

from __future__ import annotations


class MailerError(Exception):
    """The root: catch it to catch everything this package raises on purpose."""


class ConfigError(MailerError):
    """A setting is missing or wrong. ``setting`` is its name as written in the environment."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


class InvalidMessage(MailerError, ValueError):
    """The call is wrong and nothing was stored. ``field`` names the argument, ``problem`` says why."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InvalidAddress(InvalidMessage):
    """An address does not follow the grammar of RFC 5321 or smuggles a second one."""


class InvalidTemplate(InvalidMessage):
    """The template does not exist, leaves the template root, or its context lacks a variable."""


class MessageTooLarge(InvalidMessage):
    """The encoded message would exceed the configured number of bytes."""


class IdempotencyConflict(MailerError):
    """The idempotency key already belongs to a message with other content."""


class MessageNotFound(MailerError, LookupError):
    """No message has this id."""


class WrongState(MailerError):
    """The transition is not allowed from the state the message is in."""


class SecretErased(MailerError):
    """The message carried a ``Secret`` that was erased when it ended, so it cannot be rendered again."""


class BodyErased(MailerError):
    """The content of the message was erased after its end, by policy or because a person was forgotten."""


class RenderError(MailerError):
    """The template failed in the worker. The text names template and position, never a value."""


class StoreError(MailerError):
    """The store does not answer, or was not migrated. The text says which, and the next step."""


class NobodyListens(MailerError):
    """The broker is in memory and no worker runs in this process: a shell beside ``mailer dev``."""
