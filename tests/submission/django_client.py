"""Django's SMTP backend, as an application uses it; prints what it was told."""

from __future__ import annotations

import json
import os
import smtplib

import django
from django.conf import settings

settings.configure(
    EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
    EMAIL_HOST="127.0.0.1",
    EMAIL_PORT=int(os.environ["PORT"]),
    EMAIL_HOST_USER="mailer",
    EMAIL_HOST_PASSWORD=os.environ["KEY"],
    DEFAULT_CHARSET="utf-8",
)
django.setup()

from django.core.mail import EmailMultiAlternatives, send_mail, send_mass_mail  # noqa: E402

whole = EmailMultiAlternatives(
    "From Django: Grüße 🎉", "Grüße\n", "Acme <a@acme.test>", ["Ada <ada@example.test>"],
    cc=["c@example.test"], bcc=["d@example.test"], reply_to=["r@acme.test"],
    headers={"X-A": "ä", "X-Tags": '["confirm"]'},
)  # fmt: skip
whole.attach_alternative("<p>Grüße</p>", "text/html")
whole.attach("Grüße.txt", "hällo", "text/plain")
whole.attach("a.pdf", b"%PDF\0\xff", "application/pdf")
sent = [whole.send()]
mass = [(f"Mass {number}", "text", "a@acme.test", ["ada@example.test"]) for number in range(3)]
sent.append(send_mass_mail(mass))
try:
    refused = None
    send_mail("Refused", "text", "a@acme.test", ["ada%home@example.test"])
except smtplib.SMTPRecipientsRefused as exc:
    refused = next(iter(exc.recipients.values()))[0]
print(json.dumps({"sent": sent, "refused": refused}))
