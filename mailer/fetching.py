"""Get a file from an address that a stranger gave, by the rules of `mailer.outward`."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import unquote, urlsplit

from mailer.errors import InvalidMessage

FIELD = "attachments"
MAX_SECONDS = 10.0
"""For one file, however slowly its server talks."""
_CHUNK = 65_536


def fetch(url: str, max_bytes: int, *, local: bool = False, seconds: float = MAX_SECONDS) -> bytes:
    """What stands at ``url``. ``local``: http, any port and this machine are fine, too.

    Raises InvalidMessage, field ``attachments``, that tells nothing of what is in our network: for an
    address that is not allowed, one that does not answer in time with 200, and more than ``max_bytes``.
    """
    from mailer import outward  # its libraries take long to load, and few mails need them

    try:
        outward.check(url, local=local)
        with outward.conversation(seconds, local=local) as session:
            return _read(session, url, max_bytes)
    except outward.NotAllowed as exc:
        raise _refused(f"has a path that {exc}") from None
    except outward.Unreachable:
        problem = "has a path that cannot be fetched; send the content, or a public https address"
        raise _refused(problem) from None


def name_of(url: str) -> str:
    """The last part of its path, "" if there is none."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _read(session: Any, url: str, max_bytes: int) -> bytes:
    # Unpacked by nobody: a few octets of gzip may become gigabytes.
    with session.get(url, stream=True, headers={"Accept-Encoding": "identity"}) as answer:
        if answer.status_code != 200 or answer.headers.get("Content-Encoding", "identity") != "identity":
            raise _refused(f"has a path whose server answers {answer.status_code}, not a plain file")
        content = bytearray()
        while chunk := answer.raw.read1(_CHUNK, decode_content=False):
            content += chunk
            if len(content) > max_bytes:
                raise _refused(f"has a path to more than {max_bytes:,} bytes; send a link instead")
        if (length := answer.headers.get("Content-Length", "")).isdigit() and int(length) != len(content):
            raise OSError("cut short")
        return bytes(content)


def _refused(problem: str) -> InvalidMessage:
    return InvalidMessage(FIELD, problem)


def remaining(until: float) -> float:
    """Seconds until a monotonic instant, at most what one file may take."""
    return min(MAX_SECONDS, until - time.monotonic())
