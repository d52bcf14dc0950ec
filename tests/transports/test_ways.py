"""Several transports as they are written down, and which of them comes first."""

from __future__ import annotations

from collections import Counter

import pytest

from mailer.config import Settings
from mailer.errors import ConfigError
from mailer.transports import Parcel
from mailer.transports.factory import ways_for
from mailer.transports.local import MemoryTransport
from mailer.transports.url import Security
from mailer.transports.ways import Routing, Way, order, parse_named, take_routing

LANES = ("critical", "default", "bulk")


def ways(text: str, **settings: object) -> list[Way]:
    return ways_for(Settings(transports=text, **settings), {})  # type: ignore[arg-type]


def first(found: list[Way], sender: str = "app@acme.example", lane: str = "default", n: int = 0) -> list[str]:
    return [way.name for way in order(found, Parcel(f"m{n}", sender, ("ada@x.test",), b"", lane))]


def test_each_part_of_an_entry_finds_its_place() -> None:
    """The options of routing are taken off, the others are the server's own."""
    ses, post = ways(
        "ses=smtp://user:p%40w@mail.example:25?weight=3&rate=14&domain_rate=0.5&starttls=required"
        "&concurrency=20&domain_concurrency=2&senders=Acme.example,b.example&lanes=critical,default\n"
        " post=smtps://mail.test?max_messages=10"
    )
    assert ses.routing == Routing(
        3, frozenset({"acme.example", "b.example"}), frozenset({"critical", "default"}), 14, 20, 0.5, 2
    )
    assert (ses.name, ses.setting) == ("ses", "MAILER_TRANSPORTS (ses)")
    config = ses.transport.config  # type: ignore[attr-defined]
    assert (config.host, config.port, config.password) == ("mail.example", 25, "p@w")
    assert config.security is Security.REQUIRED
    assert post.routing == Routing()
    assert post.transport.config.max_messages == 10  # type: ignore[attr-defined]
    assert post.transport.config.port == 465  # type: ignore[attr-defined]


def test_a_single_server_may_have_limits_too() -> None:
    """MAILER_SMTP_URL keeps meaning one, known by host and port."""
    [way] = ways_for(Settings(smtp_url="smtp://127.0.0.1:2525?rate=14"), {})  # type: ignore[arg-type]
    assert (way.name, way.routing.rate, way.setting) == ("127.0.0.1:2525", 14, "MAILER_SMTP_URL")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" ", "names no transport"),
        ("smtp://u:s3cret@mail.example", "entry 1"),
        ("a=memory:// Upper=memory://", "entry 2"),
        ("a=memory:// a=memory://", "a twice"),
        ("a=gopher://u:s3cret@mail.example", r"\(a\): must begin with"),
        ("a=smtp://u:s3cret@mail.example?rate=no", r"\(a\): has a rate"),
        ("a=smtp://u:s3cret@mail.example?rate=nan", "has a rate"),
        ("a=smtp://u:s3cret@mail.example?rate=0", "has a rate"),
        ("a=smtp://u:s3cret@mail.example?rate=1&rate=2", "option rate twice"),
        ("a=smtp://u:s3cret@mail.example?concurrency=1.5", "has a concurrency"),
        ("a=smtp://u:s3cret@mail.example?senders=ada@acme.example", "has senders"),
        ("a=smtp://u:s3cret@mail.example?lanes=urgent", "lanes that do not exist; there are bulk,"),
        ("a=smtp://u:s3cret@mail.example?wieght=1", "option that is none of"),
        ("a=memory://?lanes=bulk b=memory://?senders=b.example", "leave one without"),
    ],
)
def test_a_mistake_stops_the_start(text: str, said: str) -> None:
    """The error names setting, transport and problem, and never repeats a password."""
    with pytest.raises(ConfigError, match=said) as refused:
        ways(text)
    assert str(refused.value).startswith("MAILER_TRANSPORTS")
    assert "s3cret" not in str(refused.value)


def test_one_or_several_not_both() -> None:
    """Nobody can say which was meant."""
    with pytest.raises(ConfigError, match="exclude each other"):
        ways("a=memory://", smtp_url="memory://")


def test_a_single_server_takes_everything() -> None:
    """There is nobody else for the rest."""
    with pytest.raises(ConfigError, match="takes the rest"):
        ways_for(Settings(smtp_url="smtp://127.0.0.1?lanes=bulk"), {})  # type: ignore[arg-type]


def test_without_weights_the_order_is_that_of_naming() -> None:
    """The second is for when the first one rests."""
    found = ways("b=memory:// a=memory:// c=memory://")
    assert {tuple(first(found, n=n)) for n in range(50)} == {("b", "a", "c")}


def test_weights_share_the_load() -> None:
    """Three to one, the same message always alike; who has no weight stands by."""
    found = ways("spare=memory:// ses=memory://?weight=3 post=memory://?weight=1")
    orders = [first(found, n=n) for n in range(4000)]
    shares = Counter(names[0] for names in orders)
    assert 2850 < shares["ses"] < 3150
    assert shares["ses"] + shares["post"] == 4000
    assert {names[2] for names in orders} == {"spare"}
    assert orders == [first(found, n=n) for n in range(4000)]


def test_a_transport_for_a_sender_or_a_lane_comes_first_and_takes_nothing_else() -> None:
    """Sender-to-provider routing; who takes anything is behind it, for when it rests."""
    found = ways(
        "any=memory://?weight=9 bulk=memory://?lanes=bulk acme=memory://?senders=acme.example"
        " both=memory://?senders=acme.example&lanes=bulk"
    )
    assert first(found, "a@other.example") == ["any"]
    assert first(found, "a@ACME.example") == ["acme", "any"]
    assert first(found, "a@other.example", "bulk") == ["bulk", "any"]
    assert first(found, "a@acme.example", "bulk") == ["both", "bulk", "acme", "any"]
    assert first(found, "", "critical") == ["any"]


def test_what_is_left_of_a_url_is_untouched() -> None:
    """Encoded signs stay encoded for whoever reads them next."""
    url = "smtp://u:p%3F@h?starttls=off&rate=2&ca_file=%2Fx%26y"
    assert take_routing(url, "X", LANES)[0] == "smtp://u:p%3F@h?starttls=off&ca_file=%2Fx%26y"
    assert take_routing("memory://?weight=1", "X", LANES)[0] == "memory://"


def test_names_keep_their_order() -> None:
    """Line breaks separate as blanks do."""
    assert parse_named("b=memory://\n  a=console://") == [("b", "memory://"), ("a", "console://")]


def test_the_name_of_a_local_transport() -> None:
    """A URL without a host is still somebody."""
    [way] = ways_for(Settings(smtp_url="memory://"), {})  # type: ignore[arg-type]
    assert isinstance(way.transport, MemoryTransport)
    assert way.name == "memory"
