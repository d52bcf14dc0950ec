"""What keeps other web sites away from the inbox, and mails from doing anything in the reader's browser.

The inbox has no log-in: being on the loopback interface is its authority. A browser on the same machine has
that too, and runs the pages of strangers. So three things are checked before any route:

* the ``Host`` asked for must be an IP address, ``localhost``, or a name listed at start; a stranger's name
  that was pointed to this machine (DNS rebinding) is refused with 403;
* a request that changes something and carries an ``Origin`` must come from the inbox's own pages;
* a request that changes something and that the browser marks as cross-site is refused.

Programs send neither ``Origin`` nor ``Sec-Fetch-Site`` and are not concerned.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from flask import Flask, Response, abort, request

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Scripts never run and nothing is requested, whatever the mail says. A person's click on a link may open a
# new tab, which is an ordinary page again.
SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
PREVIEW_POLICY = (
    f"sandbox {SANDBOX}; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
FILE_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


def install(app: Flask, allowed_hosts: Iterable[str]) -> None:
    """Check every request of the application, and put the safe headers on every answer."""
    names = {name.lower() for name in allowed_hosts}

    @app.before_request
    def check_where_it_comes_from() -> None:
        if not is_known_host(request.host, names):
            abort(403, f"The inbox does not answer to the name {request.host[:100]!r}. Ask for localhost.")
        if request.method not in _SAFE_METHODS and not _is_own_request():
            abort(403, "The inbox takes changes from its own pages and from programs, not from other sites.")

    @app.after_request
    def set_safe_headers(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        headers.setdefault("Referrer-Policy", "same-origin")  # "no-referrer" would blank a form's Origin
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-DNS-Prefetch-Control"] = "off"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response


def is_known_host(host: str, names: set[str]) -> bool:
    """Tell whether a Host header names this machine: any IP address does, as only names can be rebound."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_own_request() -> bool:
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "none")
    return (origin is None or origin == request.host_url.rstrip("/")) and site in ("none", "same-origin")
