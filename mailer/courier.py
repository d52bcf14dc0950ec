"""The courier: tells webhooks what they are owed, beside the mail and never in its way.

A thread in every worker looks who is to be called; each endpoint is served by one thread of a few, so a slow
one holds up itself. What is owed stands in the store, is taken under a lease and is told at least once; the
order is not promised. An endpoint that does not take a call is left alone for a while.
"""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailer import webhooks
from mailer.errors import MailerError
from mailer.services import Services
from mailer.store import webhooks as rows
from mailer.store.webhooks import Call, WebhookRow
from mailer.telemetry import log

LOOK_SECONDS = 1.0
AT_ONCE = 8
"""Endpoints that one process calls at the same time."""
HANDFUL = 5
"""Calls that are taken together; their lease is long enough for the slowest."""
MAX_SECONDS = 20.0
MAX_ANSWER = 65_536
"""Octets of an answer that are read. Nobody looks at them."""
LEASE = timedelta(seconds=HANDFUL * MAX_SECONDS + 20)
WAITS = [timedelta(seconds=seconds) for seconds in
         (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)]  # fmt: skip
"""Between the attempts: three days and three hours, and up to a tenth more of each."""
LONGEST_REST = timedelta(minutes=5)
LONGEST_WAIT = timedelta(days=1)
"""That a server may ask for by Retry-After."""
GIVE_UP = timedelta(days=3)
"""An endpoint that took nothing for so long is disabled."""
_GONE = 410


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, or a word for why there is none; ``wait``: how long the server asked us to."""

    said: str
    wait: timedelta | None = None

    @property
    def is_good(self) -> bool:
        """Only 2xx is."""
        return self.said.startswith("2")


class Courier:
    """Calls until stopped."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stop = threading.Event()
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._thread = threading.Thread(target=self._run, name="mailer-courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin no further call; those under way are left, and made again by another courier if they fail."""
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception as exc:  # whatever happened, the next look may find it gone
                log.error("courier.failed", error=type(exc).__name__)

    def look(self) -> None:
        """Begin to serve every endpoint that is owed something now, and is not served already."""
        with self._services.store.read() as connection:
            due = rows.with_due(connection, self._services.now())
        for id_ in due:
            with self._lock:
                if id_ in self._busy or self._stop.is_set():
                    continue
                self._busy.add(id_)
                self._pool = self._pool or ThreadPoolExecutor(AT_ONCE, "mailer-courier")
                self._pool.submit(self._serve, id_)

    def _serve(self, id_: str) -> None:
        try:
            while not self._stop.is_set() and serve(self._services, id_):
                pass
        except Exception as exc:
            log.error("courier.failed", webhook=id_, error=type(exc).__name__)
        finally:
            with self._lock:
                self._busy.discard(id_)


def serve(services: Services, id_: str) -> int:
    """Call an endpoint about a handful of what it is owed; 0 if there is nothing, or it is left alone now."""
    with services.store.begin() as connection:
        webhook = rows.find(connection, id_)
        if webhook is None or webhook.disabled_at is not None:
            return 0
        claimed = rows.claim(connection, id_, services.now(), LEASE, HANDFUL)
    for number, call in enumerate(claimed):
        if not _call(services, webhook, call):
            _give_back(services, webhook, claimed[number + 1 :])
            return 0
    return len(claimed)


def _give_back(services: Services, webhook: WebhookRow, unmade: list[Call]) -> None:
    with services.store.begin() as connection:
        for call in unmade:
            rows.give_back(connection, webhook.id, call, services.now())


def _call(services: Services, webhook: WebhookRow, call: Call) -> bool:
    """One attempt; False if the endpoint did not take it."""
    if webhooks.type_of(call) not in webhook.types:  # failed, where only bounced was asked for
        with services.store.begin() as connection:
            rows.drop(connection, webhook.id, call)
        return True
    answer = _ask(services, webhook, call)
    now = services.now()
    with services.store.begin() as connection:
        if answer.is_good:
            rows.end(connection, webhook.id, call, answer.said, now)
            rows.went_well(connection, webhook.id)
        else:
            rows.went_wrong(connection, webhook.id, now, now + _rest(webhook.failures))
            due = _next(call, answer, now)
            if due is None:
                rows.end(connection, webhook.id, call, answer.said, now)
            else:
                rows.put_off(connection, webhook.id, call, answer.said, due)
    if not answer.is_good:
        log.info("webhook.refused", webhook=webhook.id, answer=answer.said, attempt=call.attempts)
        _disable_if_hopeless(services, webhook, answer, now)
    return answer.is_good


def _ask(services: Services, webhook: WebhookRow, call: Call) -> Answer:
    from mailer import outward  # a worker without webhooks does not need what it brings

    body = webhooks.body_of(call)
    try:
        headers = webhooks.headers_for(services, webhook, call, body)
        outward.check(webhook.url, local=services.settings.fetch_local)
        return _post(services, webhook.url, body, headers)
    except outward.NotAllowed:
        return Answer("not_allowed")
    except outward.Unreachable as exc:
        return Answer(str(exc))
    except MailerError:  # its secret cannot be opened: a key is missing, and may come back
        return Answer("no_secret")


def _post(services: Services, url: str, body: bytes, headers: dict[str, str]) -> Answer:
    from mailer import outward

    fixed = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    local = services.settings.fetch_local
    with (
        outward.conversation(MAX_SECONDS, local=local, silence=MAX_SECONDS) as session,
        session.post(url, data=body, headers=fixed | headers, stream=True) as answer,
    ):
        answer.raw.read(MAX_ANSWER, decode_content=False)
        return Answer(str(answer.status_code), _asked_to_wait(answer.headers.get("Retry-After", "")))


def _asked_to_wait(text: str) -> timedelta | None:
    # RFC 9110, 10.2.3. A date is rare, and then our own time to wait is as good.
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        return None
    return min(timedelta(seconds=int(text)), LONGEST_WAIT)


def _next(call: Call, answer: Answer, now: datetime) -> datetime | None:
    if call.attempts > len(WAITS) or answer.said == str(_GONE):
        return None
    wait = WAITS[call.attempts - 1] * random.uniform(1.0, 1.1)
    return now + max(wait, answer.wait or wait)


def _rest(failures: int) -> timedelta:
    return min(timedelta(seconds=2 ** min(failures, 10)), LONGEST_REST)


def _disable_if_hopeless(services: Services, webhook: WebhookRow, answer: Answer, now: datetime) -> None:
    why = None
    if answer.said == str(_GONE):
        why = webhooks.GONE
    elif webhook.failing_since is not None and now - webhook.failing_since >= GIVE_UP:
        why = webhooks.FAILING
    if why is None:
        return
    with services.store.begin() as connection:
        rows.change(connection, webhook.id, {"disabled_at": now, "disabled_why": why})
    log.warning("webhook.disabled", webhook=webhook.id, why=why, hint="mailer webhooks enable ID")
