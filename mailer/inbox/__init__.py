"""The inbox: an SMTP server for development and tests that keeps, shows, and can refuse what it receives.

It never relays: nothing in this package opens a connection. Mails are kept in one SQLite file, read in the
browser, and fetched by test helpers through an API in the shape of Mailpit's. It listens on the loopback
interface and has no log-in; do not put it on a network others are in.

**Recipients that misbehave.** Write to one of these at any domain. Case does not matter, and a ``+detail``
may follow (``bounce-550+ada@example.com``) so that several can be told apart:

========================== ================================================================================
local part                 what happens
========================== ================================================================================
``bounce-5NN``             refused for good: RCPT is answered with that code (``bounce-550`` …)
``defer-4NN``              refused for now, every time (``defer-451``); ``defer-421`` also hangs up
``defer-once``             RCPT is answered 451, and accepted at the next try by the same sender; then again
``text-4NN``, ``text-5NN`` RCPT is accepted, the text is refused with that code, for all recipients
``drop-at-rcpt``           the connection is closed at RCPT
``drop-before-text``       the connection is closed when the text is in, and the mail is *not* kept
``drop-after-text``        the connection is closed when the text is in, and the mail *is* kept
``drop-once-after-text``   the same, and the next try by the same sender is accepted: does the mail double?
``slow``, ``slow-N``       the answer to the text takes 2, or N, seconds; at most 10
``hostile-reply``          RCPT is answered 550 with markup and terminal escapes in the words
========================== ================================================================================

**Use** it as `Inbox` (both ports, in threads), or only the `Mailbox`::

    with Inbox("inbox.sqlite", smtp_port=0, web_port=0) as inbox:
        send_something(port=inbox.smtp_port)
        [mail] = inbox.mailbox.wait_for(1)
"""

from __future__ import annotations

from mailer.inbox.app import create_inbox_app
from mailer.inbox.html import Link, find_links
from mailer.inbox.mail import Mail
from mailer.inbox.mailbox import Mailbox
from mailer.inbox.parsing import Content, Part
from mailer.inbox.server import Inbox

__all__ = ["Content", "Inbox", "Link", "Mail", "Mailbox", "Part", "create_inbox_app", "find_links"]
