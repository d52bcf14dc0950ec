"""Transactional email for Flask and Celery that never loses an accepted mail.

>>> send_email.delay("reset_password", to=user.email, context={"name": user.name})  # doctest: +SKIP
"""

from mailer.address import Address
from mailer.attachment import Attachment
from mailer.errors import (
    BodyErased,
    ConfigError,
    IdempotencyConflict,
    InvalidAddress,
    InvalidMessage,
    InvalidTemplate,
    MailerError,
    MessageNotFound,
    MessageTooLarge,
    RenderError,
    SecretErased,
    StoreError,
    WrongState,
)
from mailer.extension import Mailer, send_email
from mailer.secret import Secret
from mailer.states import State

__all__ = [
    "Address",
    "Attachment",
    "BodyErased",
    "ConfigError",
    "IdempotencyConflict",
    "InvalidAddress",
    "InvalidMessage",
    "InvalidTemplate",
    "Mailer",
    "MailerError",
    "MessageNotFound",
    "MessageTooLarge",
    "RenderError",
    "Secret",
    "SecretErased",
    "State",
    "StoreError",
    "WrongState",
    "send_email",
]
