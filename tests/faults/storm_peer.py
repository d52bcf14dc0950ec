"""Storms in which the next mail server misbehaves."""

from __future__ import annotations

from tests.faults.ground import Ground
from tests.peer import Action, Close, Drip, Raw, Say, Script, Silence, Take


def ok(count: int, code: int = 250) -> list[Say]:
    return [Say(code)] * count


def peer(ground: Ground) -> None:
    """The next server drops connections before, in and after the text, says 421 everywhere, then is good."""
    each = max(2, ground.messages // 40)
    gone, busy = [Close()] * each, [Say(421, "4.3.2 not now")] * each
    unanswered = [[(Take(), Close())] * each, [(Take(), Raw(b"25"), Close())] * each]
    script = Script(
        greeting=[Say(220), *busy, *gone, Say(220)],
        mail=[*ok(5), *busy, *gone, *ok(1)],
        rcpt=[*ok(10), *busy, *gone, *ok(1)],
        data=[*ok(15, 354), *busy, *gone, *ok(1, 354)],
        in_text=[*[Raw(b"")] * 20, *gone, Raw(b"")],
        text=[*ok(10), *busy, *gone, *unanswered[0], *unanswered[1], *ok(1)],
        quit=Close(),
    )
    ground.windows += 2 * each
    with ground.sink.listening(script):
        ground.start_workers(2)
        with ground.calling(ground.messages, 8):
            pass
        ground.finish()


SHORT = "?timeout=1&end_of_data_timeout=1&quit_timeout=1"
"""How long the storm below is waited for: a second at each step, not the minutes that RFC 5321 asks for."""


def slow_peer(ground: Ground) -> None:
    """The next server falls silent at every step, the answer to a text it took included.

    Then it is good, but every answer comes one octet at a time, that to QUIT included.
    """
    each = max(2, ground.messages // 20)
    silent: list[Action] = [Silence()] * each
    script = Script(
        greeting=[Say(220), *silent, drip("220 slow")],
        ehlo=[drip("250 slow"), *silent, drip("250 slow")],
        mail=[*ok(3), *silent, drip("250 2.1.0 ok")],
        rcpt=[*ok(6), *silent, drip("250 2.1.5 ok")],
        data=[*ok(9, 354), *silent, drip("354 go ahead")],
        in_text=[*[Raw(b"")] * 9, *silent, Raw(b"")],
        text=[*ok(5), *silent, *[(Take(), Silence())] * each, drip("250 2.0.0 taken")],
        quit=(drip("221 2.0.0 bye"), Close()),
    )
    ground.windows += each
    with ground.sink.listening(script):
        ground.start_workers(2)
        with ground.calling(ground.messages, 4):
            pass
        ground.finish()


def drip(reply: str) -> Drip:
    return Drip(f"{reply}\r\n".encode(), 0.01)
