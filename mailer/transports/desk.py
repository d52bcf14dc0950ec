"""One ledger for several transports that work at the same time.

A ledger belongs to the thread that called ``transmit``. So each transport gets a thread of its own, and what
they ask and report is gathered here and handed over by the first thread, in one transaction each time.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from mailer.transports import Ledger, Parcel, Receipt


@dataclass(slots=True)
class _Request:
    """What one transport reports and asks, and the answer once it is there."""

    settled: Sequence[tuple[Parcel, Receipt]]
    asking: Sequence[Parcel]
    answer: Collection[str] = ()
    error: Exception | None = None
    answered: threading.Event = field(default_factory=threading.Event)


class Desk:
    """The `Ledger` that several threads may use, while `run` serves it in the one that owns the real one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()

    def run(self, works: Sequence[Callable[[Ledger], None]]) -> None:
        """Do all of it at once, each in its own thread with this thread's context, until all are done.

        Only one thing to do is done here. None of it may raise.
        """
        if len(works) == 1:
            works[0](self._ledger)
            return
        for number, work in enumerate(works):
            context = contextvars.copy_context()  # Flask's application among it
            threading.Thread(
                target=context.run, args=(self._do, work), name=f"mailer-route-{number}", daemon=True
            ).start()
        self._serve(len(works))

    def update(self, settled: Sequence[tuple[Parcel, Receipt]], asking: Sequence[Parcel]) -> Collection[str]:
        """As the ledger's, from any of the threads."""
        request = _Request(settled, asking)
        self._requests.put(request)
        request.answered.wait()
        if request.error is not None:
            raise request.error
        return request.answer

    def _do(self, work: Callable[[Ledger], None]) -> None:
        try:
            work(self)
        finally:
            self._requests.put(None)

    def _serve(self, at_work: int) -> None:
        while at_work:
            waiting = [self._requests.get()]
            while not self._requests.empty():
                waiting.append(self._requests.get())
            at_work -= waiting.count(None)
            requests = [request for request in waiting if request is not None]
            if requests:
                self._hand_over(requests)

    def _hand_over(self, requests: Sequence[_Request]) -> None:
        settled = [pair for request in requests for pair in request.settled]
        asking = [parcel for request in requests for parcel in request.asking]
        try:
            answer = self._ledger.update(settled, asking)
        except Exception as exc:  # for whoever asked: this thread has to serve the others
            for request in requests:
                request.error = exc
        else:
            for request in requests:
                request.answer = answer
        for request in requests:
            request.answered.set()
