"""Real answers over a real connection: as the wire reads them, the tables know them."""

from __future__ import annotations

import pytest

from mailer.replies import Blame, Fate, explain
from mailer.transports.route import is_fault
from tests.peer import Say, Script, SmtpPeer
from tests.transports.talking import send_one

GMAIL = "\n".join(
    [
        "5.7.26 Unauthenticated email from acme.test is not accepted due to",
        "5.7.26 domain's DMARC policy. Please contact the administrator of",
        "5.7.26 acme.test domain if this was a legitimate mail. - gsmtp",
    ]
)


@pytest.mark.parametrize(
    ("script", "fate", "reason", "blame", "candidate"),
    [
        (Script(text=Say(550, GMAIL)), Fate.FAILED, "not_authenticated", Blame.SENDER, False),
        (
            Script(rcpt=Say(550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found")),
            *(Fate.FAILED, "mailbox_unknown", Blame.RECIPIENT, True),
        ),
        (
            Script(rcpt=Say(421, "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred")),
            *(Fate.DEFERRED, "rate_limited", Blame.SENDER, False),
        ),
        (
            Script(text=Say(454, "Throttling failure: Maximum sending rate exceeded.")),
            *(Fate.DEFERRED, "rate_limited", Blame.TRANSPORT, False),
        ),
        (
            Script(text=Say(554, "Message rejected: Email address is not verified.")),
            *(Fate.FAILED, "sender_not_verified", Blame.TRANSPORT, False),
        ),
        (
            Script(mail=Say(550, "Unauthenticated senders not allowed")),
            *(Fate.TRANSPORT_FAULT, "auth_failed", Blame.TRANSPORT, False),
        ),
        (Script(rcpt=Say(550, "4.1.1 who?")), Fate.FAILED, "mailbox_unknown", Blame.RECIPIENT, False),
        (Script(rcpt=Say(450, "5.1.1 who?")), Fate.DEFERRED, "mailbox_unknown", Blame.RECIPIENT, False),
        (
            Script(rcpt=Say(550, "5.1.1 \x1b[2J<script>\u2028 temporary, try again: spamhaus")),
            *(Fate.FAILED, "address_blocked", Blame.SENDER, False),
        ),
    ],
)
def test_what_came_over_the_wire_is_known(script, fate, reason, blame, candidate, both_ways):
    """SC1, SC19: codes decide, also where several lines repeat them; a hostile text decides nothing."""
    with SmtpPeer(script) as peer:
        found = explain(send_one(peer))
    assert (found.rule.fate, found.reason, found.blame, found.suppress) == (fate, reason, blame, candidate)


def test_used_up_credits_rest_the_transport_and_say_so(both_ways):
    """SC7: SendGrid tells it at the log-in: no mail is to blame, and the words name the credits."""
    script = Script(credentials=("u", "p"), auth=Say(451, "Authentication failed: Maximum credits exceeded"))
    with SmtpPeer(script) as peer:
        result = send_one(peer, username="u", password="p", plain_auth_loopback=True)
    assert is_fault(result)
    found = explain(result)
    assert (found.rule.fate, found.reason) == (Fate.TRANSPORT_FAULT, "auth_failed")
    assert found.means == "the account may send no more for now"
