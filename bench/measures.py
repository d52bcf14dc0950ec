"""What is measured of one contender, with one sink."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from bench.contenders import Setting
from bench.order import SENDER, TEMPLATES, order
from bench.sink import Sink
from mailer.address import Address
from mailer.dkim import Signer, make_key
from mailer.mime import build

PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Figures:
    """Of one measurement. ``cpu`` is in seconds per 1,000 mails: workers', and everybody's but the sink's."""

    rate: float
    worker_cpu: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    calls: float = 0.0


def drain(setting: Setting, sink: Sink, mails: int) -> Figures:
    """The queue is full, then the workers start: what they do once a tenth is through."""
    sink.forget()
    produced = setting.produce(mails)
    with setting.working():
        _wait(sink, mails // 10)
        first, before, beside = sink.count(), setting.workers().cpu, setting.beside()
        _wait(sink, mails)
        after = setting.workers()
        thousands = (sink.count() - first) / 1_000
        worker_cpu = (after.cpu - before) / thousands
        others = (setting.beside() - beside) / thousands + produced["cpu"] / mails * 1_000
    times = sink.times()  # the sink knows better than we, who look now and then
    rate = (mails - first) / (times[mails - 1] - times[first])
    return Figures(rate, worker_cpu, worker_cpu + others, after.pss, mails / produced["seconds"])


def together(setting: Setting, sink: Sink, mails: int) -> Figures:
    """Workers wait, one process calls: from its first call to the last mail taken."""
    with setting.working():
        time.sleep(1)
        sink.forget()
        before, beside = setting.workers().cpu, setting.beside()
        produced = setting.produce(mails)
        _wait(sink, mails)
        after = setting.workers()
        worker_cpu = (after.cpu - before) / mails * 1_000
        others = (setting.beside() - beside + produced["cpu"]) / mails * 1_000
    seconds = sink.times()[-1] - min(produced["began"].values())
    return Figures(mails / seconds, worker_cpu, worker_cpu + others, after.pss, mails / produced["seconds"])


def light(setting: Setting, sink: Sink, mails: int, every: float = 0.05) -> list[float]:
    """Milliseconds from each call to the server's 250, one call now and then."""
    with setting.working():
        time.sleep(1)
        sink.forget()
        produced = setting.produce(mails, "--every", str(every))
        _wait(sink, mails + 1)
    taken = dict(sink.taken())
    return [(taken[to] - began) * 1_000 for to, began in produced["began"].items()]


def _wait(sink: Sink, mails: int) -> None:
    if not sink.wait_for(mails, PATIENCE_SECONDS):
        raise SystemExit(f"only {sink.count()} of {mails} mails came")


def urgent(setting: Setting, sink: Sink, bulk: int, mails: int) -> list[float]:
    """Milliseconds from each call to the 250 of urgent mails, ten a second, while bulk goes out."""
    setting.run("-m", "bench.product", "fill", str(bulk))
    sink.forget()
    with setting.working():
        produced = setting.produce(mails, "--every", "0.1", "--lane", "critical", "--prefix", "urgent")
        left = bulk - sink.count()
        if left < bulk / 10:
            raise SystemExit(f"only {left} bulk mails were left: take more, or fewer urgent ones")
        taken = dict(sink.taken())
    return [(taken[to] - began) * 1_000 for to, began in produced["began"].items() if to in taken]


@dataclass(frozen=True)
class Long:
    """A long queue: mails a second at its beginning and end, MiB of the workers at both."""

    first: float
    last: float
    memory_first: float
    memory_last: float


def long(setting: Setting, sink: Sink, mails: int) -> Long:
    """The queue holds so many, then the workers start; a hundredth of them makes a beginning and an end."""
    setting.run("-m", "bench.product", "fill", str(mails))
    part = mails // 100
    sink.forget()  # before: workers begin as soon as they can
    with setting.working():
        _wait(sink, max(part, min(2_000, mails // 4)))  # every thread has had a batch of its own by then
        memory_first = setting.workers().pss
        _wait(sink, mails)
        memory_last = setting.workers().pss
    times = sink.times()
    return Long(_rate(times[part : 6 * part]), _rate(times[-5 * part :]), memory_first, memory_last)


def signing(folder: Path, times: int = 500) -> tuple[float, float]:
    """CPU milliseconds of making one mail, and of signing it."""
    make_key(folder / "dkim.pem")
    signer = Signer.load([f"acme.example:bench:{folder / 'dkim.pem'}"])
    sender, to = Address.parse(SENDER, "sender"), Address.parse("ada@example.org", "to")
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    html, text = (pages.get_template(f"email/order/body.{kind}") for kind in ("html", "txt"))
    at = datetime.now(UTC)

    def make() -> bytes:
        return build(
            message_id="<1@acme.example>", date=at, sender=sender, to=[to], subject="Your order",
            text=text.render(order(1)), html=html.render(order(1)),
        )  # fmt: skip

    mail = make()
    return _milliseconds(make, times), _milliseconds(lambda: signer.sign(mail, "acme.example", at), times)


def _milliseconds(work: Callable[[], object], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times * 1_000


def _rate(times: Sequence[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])
