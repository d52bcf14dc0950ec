"""The SMTP door: for what speaks nothing but SMTP. A 250 after the text means that the mail is committed.

One more door to `mailer.outbox`, beside `send_email.delay` and the HTTP API, with the same keys and limits:
a message submission agent (RFC 6409) that relays nothing without an API key. Read `server` for how it runs,
`session` for what it says, `entity` and `asking` for what becomes of a mail, `replies` for refusals.
"""

from __future__ import annotations

from mailer.submission.server import Door, serve

__all__ = ["Door", "serve"]
