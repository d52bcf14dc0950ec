"""What large providers mean by an answer, as their pages say. Looked at before the standards.

Where only the text tells two cases apart, a phrase of it chooses the words and whose matter it is: never what
is done, and never that a recipient may be suppressed.
"""

from __future__ import annotations

from mailer.replies.rows import Blame, Meaning

SOURCES: dict[str, tuple[str, str]] = {
    "Gmail": ("Gmail SMTP errors and codes", "https://support.google.com/a/answer/3726730"),
    "Microsoft 365": (
        "Email nondelivery reports and SMTP errors in Exchange Online",
        "https://learn.microsoft.com/en-us/troubleshoot/exchange/email-delivery/ndr/"
        "non-delivery-reports-in-exchange-online",
    ),
    "Outlook.com": (
        "Outlook.com Postmaster, troubleshooting",
        "https://sendersupport.olc.protection.outlook.com/pm/troubleshooting.aspx",
    ),
    "Yahoo": ("Yahoo Sender Hub, SMTP error codes", "https://senders.yahooinc.com/smtp-error-codes/"),
    "SES": ("Amazon SES SMTP issues", "https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-smtp.html"),
    "SendGrid": (
        "SMTP errors and troubleshooting",
        "https://www.twilio.com/docs/sendgrid/for-developers/sending-email/smtp-errors-and-troubleshooting",
    ),
    "Postmark": ("SMTP API error", "https://postmarkapp.com/developer/webhooks/smtp-api-error"),
    "IANA": (
        "SMTP enhanced status codes",
        "https://www.iana.org/assignments/smtp-enhanced-status-codes/smtp-enhanced-status-codes.xhtml",
    ),
}
"""The short names used in the tables, and where to read it."""

_ANY = ""
_AFTER_MAIL = "rcpt data text"
_AUTHENTICATE = "correct the SPF record, sign with DKIM, and let both match the From address"
_BLOCKED = (
    "ask the block list, or the page named in the answer, to take the address off; else send by a provider"
)

PROVIDERS: tuple[Meaning, ...] = (
    # The account with the provider that sends for us
    Meaning(
        reason="quota_used_up", stages=_ANY, blame=Blame.TRANSPORT,
        says=(
            "daily message quota exceeded", "maximum credits exceeded", "received this hour (throttled)",
            "smtp relay limit exceeded", "user sending limit exceeded", "user sending quota exceeded",
        ),
        means="the account may send no more for now",
        step="wait for the next day, or ask the provider for more", source="SES, SendGrid, Gmail",
    ),
    Meaning(
        reason="quota_used_up", codes="5..", enhanced="5.4.5 5.7.705 5.1.90", blame=Blame.TRANSPORT,
        means="the account may send no more for now",
        step="wait for the next day, or ask the provider for more", source="Gmail, Microsoft 365",
    ),
    Meaning(
        reason="rate_limited", stages=_ANY, codes="4..", says=("maximum sending rate exceeded",),
        blame=Blame.TRANSPORT, means="the account sends faster than the provider allows",
        step="set rate in {setting} to what the provider allows", source="SES",
    ),
    Meaning(
        reason="server_busy", stages=_ANY, codes="4..", blame=Blame.TRANSPORT,
        says=("too many concurrent smtp connections", "concurrent connections limit exceeded"),
        means="too many connections at once for the provider",
        step="set concurrency in {setting} to what the provider allows", source="SES, Microsoft 365",
    ),
    Meaning(
        reason="auth_failed", stages=_ANY, codes="5..", says=("application-specific password required",),
        blame=Blame.TRANSPORT, means="the account wants a password made for this program",
        step="make an app password in the account and put it into {setting}", source="Gmail",
    ),
    Meaning(
        reason="auth_failed", stages=_ANY, codes="5..", blame=Blame.TRANSPORT,
        says=("smtpclientauthentication is disabled", "basic authentication is disabled"),
        means="the organisation does not allow log-in by password",
        step="have SMTP AUTH allowed for the mailbox, or use another provider", source="Microsoft 365",
    ),
    Meaning(
        reason="auth_failed", stages=_ANY, says=("account not subscribed to ses",), blame=Blame.TRANSPORT,
        means="the account has not signed up for SES", step="sign the account up in the provider's console",
        source="SES",
    ),
    Meaning(
        reason="auth_failed", codes="5..", says=("unauthenticated senders not allowed",),
        blame=Blame.TRANSPORT, means="the server takes no mail without a log-in",
        step="put user name and password into {setting}", source="SendGrid",
    ),
    Meaning(
        reason="sender_not_verified", blame=Blame.TRANSPORT,
        says=(
            "email address is not verified", "verified sender identity",
            "not authorized to send from that", "sendasdenied", "permissions to send as this sender",
        ),
        means="the account may not send as this sender",
        step="verify the sender's address or domain in the provider's console",
        source="SES, SendGrid, Microsoft 365",
    ),
    Meaning(
        reason="account_refused", stages=_ANY, blame=Blame.TRANSPORT,
        says=(
            "is not authorized to perform", "sending suspended", "sending paused for this account",
            "bad outbound sender",
        ),
        means="the provider does not let the account send",
        step="look at the account in the provider's console: its rights, and whether it is suspended",
        source="SES, Microsoft 365",
    ),
    Meaning(
        reason="suppressed_by_provider", blame=Blame.RECIPIENT,
        says=("marked as inactive", "inactive recipient", "on the suppression list", "address blacklisted"),
        means="the provider does not send to this recipient after an earlier bounce or complaint",
        step="take the address off the provider's suppression list if the person wants your mail",
        source="Postmark, SES",
    ),
    Meaning(
        reason="relay_denied", blame=Blame.TRANSPORT, enhanced="5.7.54 5.7.64",
        means="the server does not send on to other servers for this account",
        step="check that {setting} names your provider's server for sending, with a log-in",
        source="Microsoft 365",
    ),
    Meaning(
        reason="relay_denied", blame=Blame.TRANSPORT, codes="5..",
        says=("relay access denied", "relaying denied", "unable to relay", "relay not permitted"),
        means="the server does not send on to other servers for this account",
        step="check that {setting} names your provider's server for sending, with a log-in",
        source="Microsoft 365; Postfix, Sendmail and Exim say so too",
    ),
    # What the recipient's server holds against the sender
    Meaning(
        reason="tls_required", stages=_ANY, enhanced="4.7.x 5.7.x", says=("tls required",),
        blame=Blame.TRANSPORT, means="the recipient's domain takes mail only over TLS",
        step="let {setting} use TLS", source="Gmail",
    ),
    Meaning(
        reason="not_authenticated", enhanced="x.7.27 x.7.30 x.7.32 x.7.509 x.7.515", blame=Blame.SENDER,
        means="SPF, DKIM or DMARC of the sender's domain do not vouch for the mail", step=_AUTHENTICATE,
        source="Gmail, Microsoft 365",
    ),
    Meaning(
        reason="no_reverse_dns", enhanced="x.7.23 x.7.1 x.7.0", says=("ptr record",), blame=Blame.SENDER,
        means="the sending machine's IP address has no name in the DNS that leads back to it",
        step="have a PTR record made for it, or send through a provider", source="Gmail",
    ),
    Meaning(
        reason="content_refused", codes="5..", says=("[ph0",), blame=Blame.MESSAGE,
        means="the content looks like phishing to the recipient's server",
        step="look at the links and words of the mail", source="Yahoo",
    ),
    Meaning(
        reason="not_authenticated", stages="mail data text", codes="550 553 554", enhanced="5.7.9",
        blame=Blame.SENDER,
        means="SPF, DKIM or DMARC of the sender's domain do not vouch for the mail", step=_AUTHENTICATE,
        source="Yahoo",
    ),
    Meaning(
        reason="address_blocked", codes="5..", enhanced="5.7.606-649 5.7.501-503 5.7.511 5.7.708",
        blame=Blame.SENDER, means="the sending machine's IP address is on a block list", step=_BLOCKED,
        source="Microsoft 365",
    ),
    Meaning(
        reason="address_blocked", codes="5..", blame=Blame.SENDER,
        says=(
            "on our block list", "blocked using", "banned sending ip", "spamhaus", "sc-001", "sc-002",
            "sc-003", "sc-004", "dy-001", "dy-002", "ou-001", "ou-002", "[bl2", "[ts",
        ),
        means="the sending machine's IP address is on a block list", step=_BLOCKED,
        source="Outlook.com, Yahoo",
    ),
    Meaning(
        reason="rate_limited", stages=_ANY, codes="4..", blame=Blame.SENDER,
        says=(
            "unusual rate of unsolicited", "[ts", "unexpected volume or user complaints", "rp-001", "rp-002",
            "rp-003",
        ),
        means="the recipient's server gets too much from you, or too many complaints",
        step="send fewer mails there: see domain_rate among a transport's limits",
        source="Gmail, Yahoo, Outlook.com",
    ),
    Meaning(
        reason="rate_limited", codes="4..", enhanced="4.7.500-699", blame=Blame.SENDER,
        means="the recipient's server gets too much from you, or does not know the sending machine yet",
        step="send fewer mails there: see domain_rate among a transport's limits", source="Microsoft 365",
    ),
    Meaning(
        reason="greylisted", codes="4..", says=("greylist", "graylist"), blame=Blame.TRANSPORT,
        means="the recipient's server lets strangers come twice",
        step="nothing: it is tried again by itself", source="RFC 6647",
    ),
    # The mail
    Meaning(
        reason="content_refused", enhanced="x.7.x", blame=Blame.MESSAGE,
        says=(
            "likely unsolicited mail", "suspicious due to the nature of the content",
            "potential security issue", "detected as spam", "identified as spam",
            "considered spam", "spam message rejected", "virus",
        ),
        means="the content looks like spam, or harmful, to the recipient's server",
        step="look at the links, attachments and words of the mail", source="Gmail",
    ),
    Meaning(
        reason="malformed", codes="5..", enhanced="x.7.x x.6.x", blame=Blame.MESSAGE,
        says=("rfc 5322", "rfc 2822", "from: header", "header count exceeded"),
        means="the recipient's server finds the headers wrong",
        step="look at the headers you set yourself", source="Gmail, Microsoft 365",
    ),
    # The recipient
    Meaning(
        reason="refused_by_recipient", codes="5..", enhanced="5.7.124 5.7.129 5.7.133-136",
        blame=Blame.RECIPIENT, means="the mailbox takes mail from some senders only",
        step="ask the person to let your sender's address in", source="Microsoft 365",
    ),
    Meaning(
        reason="mailbox_busy", stages=_AFTER_MAIL, enhanced="x.2.1", blame=Blame.RECIPIENT,
        says=("too quickly", "prevents additional messages"),
        means="the mailbox gets more mail than its provider allows", step="send this person fewer mails",
        source="Gmail",
    ),
    Meaning(
        reason="mailbox_busy", stages=_AFTER_MAIL, codes="432", enhanced="4.3.2", blame=Blame.RECIPIENT,
        means="the mailbox gets more mail at once than its provider allows",
        step="nothing: it is tried again by itself", source="Microsoft 365",
    ),
    Meaning(
        reason="mailbox_unknown", stages=_AFTER_MAIL, codes="5..", enhanced="5.1.10",
        says=("recipientnotfound", "recipient not found"), blame=Blame.RECIPIENT, suppress=True,
        means="there is no such mailbox", step="correct the address, or take it out of your data",
        source="Microsoft 365",
    ),
    Meaning(
        reason="mailbox_refused", stages=_AFTER_MAIL, codes="5..", enhanced="5.4.1", blame=Blame.RECIPIENT,
        means="the recipient's organisation knows no such mailbox, or takes no mail for its domain",
        step="check the address; the organisation's administrator can say more", source="Microsoft 365",
    ),
    Meaning(
        reason="mailbox_unknown", stages=_AFTER_MAIL, codes="5..", says=("this user doesn't have a",),
        blame=Blame.RECIPIENT, means="there is no such mailbox, the server says",
        step="correct the address, or take it out of your data", source="Yahoo",
    ),
    Meaning(
        reason="mailbox_full", stages=_AFTER_MAIL, says=("account is over quota", "mailbox is over quota"),
        blame=Blame.RECIPIENT, means="the mailbox is full",
        step="reach the person another way, and retry later", source="Yahoo",
    ),
)  # fmt: skip
