"""The ``mailer`` command: each command parses, calls one function, and prints.

The same group is ``flask mailer`` in a host application, and then works on that application.

Exit codes:

==  =====================================================================
0   done
1   the mail did not get through: failed, expired, cancelled or suppressed
2   bad input or usage
3   no such message, or the template lacks that part
4   the message's state does not allow it
5   a setting or an operator is wrong, or the store does not answer
6   still under way when ``--wait`` ran out, or ``forget`` has to be run again
==  =====================================================================
"""

# They add their commands to the group.
from mailer.cli import (
    dkim,
    doctor,
    keys,
    messages,
    operators,
    retention,
    run,
    suppressions,
    transports,
    webhooks,
)
from mailer.cli.group import mailer, main

__all__ = [
    "dkim",
    "doctor",
    "keys",
    "mailer",
    "main",
    "messages",
    "operators",
    "retention",
    "run",
    "suppressions",
    "transports",
    "webhooks",
]
