"""What an answer means by the standards, where no provider is known to mean something else by it."""

from __future__ import annotations

from mailer.replies.rows import Blame, Meaning

_RCPT, _AFTER_MAIL = "rcpt", "rcpt data text"
_CORRECT = "correct the address, or take it out of your data"
_BY_ITSELF = "nothing: it is tried again by itself"

STANDARD: tuple[Meaning, ...] = (
    # The connection, the log-in, and what is no answer
    Meaning(
        reason="connect_failed", stages="connect", blame=Blame.TRANSPORT,
        means="no connection to the server",
        step="check host and port in {setting}, and whether anything blocks the way", source="Mailer",
    ),
    Meaning(
        reason="greeting_refused", stages="greeting", blame=Blame.TRANSPORT,
        means="the server turns us away before any mail",
        step="it is overloaded, or does not want this machine: ask the provider if it lasts",
        source="RFC 5321, 3.1",
    ),
    Meaning(
        reason="tls_failed", stages="tls", blame=Blame.TRANSPORT, means="no safe connection to the server",
        step="check its certificate and name, and the host and ca_file in {setting}", source="RFC 3207, 4",
    ),
    Meaning(
        reason="auth_failed", stages="auth", codes="4..", blame=Blame.TRANSPORT,
        means="the server cannot check passwords at the moment", step=_BY_ITSELF, source="RFC 4954, 6",
    ),
    Meaning(
        reason="auth_failed", stages="mail", codes="432 454", blame=Blame.TRANSPORT,
        means="the server cannot check passwords at the moment", step=_BY_ITSELF, source="RFC 4954, 6",
    ),
    Meaning(
        reason="auth_failed", stages="auth", blame=Blame.TRANSPORT, means="the server refused the log-in",
        step="check the user name and password in {setting}", source="RFC 4954, 6",
    ),
    Meaning(
        reason="auth_failed", codes="530 534 535 538", blame=Blame.TRANSPORT,
        means="the server takes no mail without another log-in",
        step="check the user name and password in {setting}", source="RFC 4954, 6",
    ),
    Meaning(
        reason="protocol_error", stages="mail rcpt data", codes="garbled other", blame=Blame.TRANSPORT,
        means="what the server said is not SMTP, or has no place there",
        step="check that {setting} names a mail server", source="RFC 5321, 4.2",
    ),
    Meaning(
        reason="outcome_unknown", stages="text", codes="lost garbled other", blame=Blame.TRANSPORT,
        means="the text went out and no answer came, so there may be a copy",
        step="look into the provider's log, then settle the message if it is uncertain", source="RFC 1047",
    ),
    Meaning(
        reason="connection_lost", stages="mail rcpt data", codes="lost", blame=Blame.TRANSPORT,
        means="the connection was lost before the text", step=_BY_ITSELF, source="RFC 5321, 3.8",
    ),
    # The message
    Meaning(
        reason="message_too_large", stages="mail", codes="552", blame=Blame.MESSAGE,
        means="the mail is larger than the server takes",
        step="make it smaller: link to files instead of attaching them", source="RFC 1870, 6",
    ),
    Meaning(
        reason="message_too_large", enhanced="x.3.4 x.2.3", blame=Blame.MESSAGE,
        means="the mail is larger than the server takes",
        step="make it smaller: link to files instead of attaching them", source="RFC 3463, 3.3 and 3.4",
    ),
    Meaning(
        reason="smtputf8_missing", enhanced="x.6.7", blame=Blame.TRANSPORT,
        means="the address has letters beyond ASCII before the @, and the server has no SMTPUTF8",
        step="use a provider that offers SMTPUTF8, or another address", source="RFC 6531, 3.5",
    ),
    Meaning(
        reason="content_unsupported", enhanced="x.6.x", blame=Blame.MESSAGE,
        means="the server cannot take the way the content is written",
        step="look at the attachments and their types", source="RFC 3463, 3.7",
    ),
    # The sender, at the recipient's server
    Meaning(
        reason="not_authenticated", enhanced="x.7.20-24 x.7.26", blame=Blame.SENDER,
        means="SPF, DKIM or DMARC of the sender's domain do not vouch for the mail",
        step="correct the SPF record, sign with DKIM, and let both match the From address",
        source="RFC 7372, 3",
    ),
    Meaning(
        reason="no_reverse_dns", enhanced="x.7.25", blame=Blame.SENDER,
        means="the sending machine's IP address has no name in the DNS that leads back to it",
        step="have a PTR record made for it, or send through a provider", source="RFC 7372, 3.3",
    ),
    Meaning(
        reason="rate_limited", enhanced="x.7.28", blame=Blame.SENDER,
        means="the recipient's server gets too much from you",
        step="send fewer mails there: see domain_rate among a transport's limits", source="IANA, X.7.28",
    ),
    Meaning(
        reason="sender_refused", enhanced="x.1.7 x.1.8 x.7.27 x.7.29", blame=Blame.SENDER,
        means="the sender's address or domain is refused",
        step="check that the sender's domain exists and takes mail", source="RFC 3463, 3.2; IANA",
    ),
    Meaning(
        reason="sender_refused", stages="mail", codes="5..", blame=Blame.SENDER,
        means="the server does not take mail from this sender",
        step="check the sender's address, and that the account of {setting} may use it", source="Mailer",
    ),
    Meaning(
        reason="asked_to_wait", codes="4..", enhanced="x.7.x", blame=Blame.SENDER,
        means="the server wants less from you, or wants strangers to come again later",
        step="nothing, unless it lasts: send fewer mails there then", source="RFC 3463, 3.8",
    ),
    Meaning(
        reason="refused_by_policy", enhanced="x.7.x", blame=Blame.SENDER,
        means="a rule of the recipient's server refuses the mail",
        step="read the server's words: they often name the rule and a page about it", source="RFC 3463, 3.8",
    ),
    # The recipient
    Meaning(
        reason="mailbox_unknown", stages=_AFTER_MAIL, enhanced="x.1.1", blame=Blame.RECIPIENT, suppress=True,
        means="there is no such mailbox", step=_CORRECT, source="RFC 3463, 3.2",
    ),
    Meaning(
        reason="domain_unknown", stages=_AFTER_MAIL, enhanced="x.1.2", blame=Blame.RECIPIENT, suppress=True,
        means="there is no such domain, or it takes no mail", step=_CORRECT, source="RFC 3463, 3.2",
    ),
    Meaning(
        reason="address_invalid", stages=_AFTER_MAIL, enhanced="x.1.3", blame=Blame.RECIPIENT, suppress=True,
        means="the address is not written as one", step=_CORRECT, source="RFC 3463, 3.2",
    ),
    Meaning(
        reason="mailbox_moved", stages=_AFTER_MAIL, enhanced="x.1.6", blame=Blame.RECIPIENT, suppress=True,
        means="the mailbox has moved and nothing is sent on", step="ask the person for the new address",
        source="RFC 3463, 3.2",
    ),
    Meaning(
        reason="domain_takes_no_mail", stages=_AFTER_MAIL, enhanced="x.1.10", blame=Blame.RECIPIENT,
        suppress=True, means="the domain says that it takes no mail", step=_CORRECT, source="RFC 7505, 4.2",
    ),
    Meaning(
        reason="mailbox_disabled", stages=_AFTER_MAIL, enhanced="x.2.1", blame=Blame.RECIPIENT, suppress=True,
        means="the mailbox is there and takes no mail", step="ask the person for another address",
        source="RFC 3463, 3.3",
    ),
    Meaning(
        reason="mailbox_full", stages=_AFTER_MAIL, enhanced="x.2.2", blame=Blame.RECIPIENT,
        means="the mailbox is full", step="reach the person another way, and retry later",
        source="RFC 3463, 3.3",
    ),
    Meaning(
        reason="mailbox_unknown", stages=_RCPT, codes="5..", blame=Blame.RECIPIENT,
        says=("user unknown", "no such user", "unknown user", "unknown recipient"),
        means="there is no such mailbox, the server says", step=_CORRECT, source="RFC 5321, D.1",
    ),
    # The server
    Meaning(
        reason="server_full", enhanced="x.3.1", blame=Blame.TRANSPORT,
        means="the server has no room left", step="nothing, unless it lasts: ask the provider then",
        source="RFC 3463, 3.4",
    ),
    Meaning(
        reason="no_route", enhanced="x.4.1-4 x.4.6-7", blame=Blame.TRANSPORT,
        means="the server cannot reach the one behind it",
        step="check the recipient's domain if it lasts", source="RFC 3463, 3.5",
    ),
    Meaning(
        reason="too_many_recipients", enhanced="x.5.3", blame=Blame.TRANSPORT,
        means="too many recipients in one mail for this server", step=_BY_ITSELF, source="RFC 3463, 3.6",
    ),
    Meaning(
        reason="command_refused", codes="5..", enhanced="x.5.1 x.5.2 x.5.4", blame=Blame.TRANSPORT,
        means="the server does not understand what it was told",
        step="read the transcript in the timeline, and ask the provider", source="RFC 3463, 3.6",
    ),
    # No enhanced code, or one that says no more than the basic one
    Meaning(
        reason="server_busy", codes="421 451", blame=Blame.TRANSPORT,
        means="the server has no time or goes down", step=_BY_ITSELF, source="RFC 5321, 4.2.3",
    ),
    Meaning(
        reason="mailbox_full", stages=_AFTER_MAIL, codes="422", blame=Blame.RECIPIENT,
        means="the mailbox is full", step="reach the person another way, and retry later",
        source="no standard has it; in use",
    ),
    Meaning(
        reason="server_full", codes="452", blame=Blame.TRANSPORT,
        means="the server has no room, or enough recipients for now", step=_BY_ITSELF,
        source="RFC 5321, 4.2.3",
    ),
    Meaning(
        reason="domain_takes_no_mail", stages=_AFTER_MAIL, codes="521 556", blame=Blame.RECIPIENT,
        suppress=True, means="the domain says that it takes no mail", step=_CORRECT,
        source="RFC 7504, RFC 7505",
    ),
    Meaning(
        reason="mailbox_moved", stages=_AFTER_MAIL, codes="551", blame=Blame.RECIPIENT, suppress=True,
        means="the mailbox is elsewhere", step="ask the person for the new address", source="RFC 5321, 3.4",
    ),
    Meaning(
        reason="too_many_recipients", stages=_RCPT, codes="552", blame=Blame.TRANSPORT,
        means="too many recipients in one mail for this server", step=_BY_ITSELF,
        source="RFC 5321, 4.5.3.1.10",
    ),
    Meaning(
        reason="message_too_large", stages="data text", codes="552", blame=Blame.MESSAGE,
        means="the mail is larger than the server takes",
        step="make it smaller: link to files instead of attaching them", source="RFC 1870, 6",
    ),
    Meaning(
        reason="command_refused", stages=_AFTER_MAIL, codes="500 502 503 504", blame=Blame.TRANSPORT,
        means="the server does not understand what it was told",
        step="read the transcript in the timeline, and ask the provider", source="RFC 5321, 4.2.3",
    ),
    Meaning(
        reason="mailbox_busy", stages=_RCPT, codes="4..", blame=Blame.RECIPIENT,
        means="the mailbox cannot be reached for now", step=_BY_ITSELF, source="RFC 5321, 4.2.3",
    ),
    Meaning(
        reason="mailbox_refused", stages=_RCPT, codes="5..", blame=Blame.RECIPIENT,
        means="the server does not take mail for this recipient, and does not say why in a code",
        step="read the server's words", source="RFC 5321, 4.2.3",
    ),
    Meaning(
        reason="server_busy", codes="4..", blame=Blame.TRANSPORT,
        means="the server cannot take the mail for now", step=_BY_ITSELF, source="RFC 5321, 4.2.1",
    ),
    Meaning(
        reason="refused", stages="data text", codes="5..", blame=Blame.MESSAGE,
        means="the server does not take this mail, and does not say why in a code",
        step="read the server's words", source="RFC 5321, 4.2.3",
    ),
)  # fmt: skip
