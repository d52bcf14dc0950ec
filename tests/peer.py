"""A scripted SMTP server that misbehaves on request, and remembers every copy it took.

::

    with SmtpPeer(Script(rcpt=[Say(250), Say(550, "5.1.1 no such user")])) as peer:
        ...                      # talk to 127.0.0.1, peer.port
    peer.accepted                # the copies it answered for, oldest first
    peer.commands                # what it was told, line by line

A stage of the script is an action, or a list of them used one after the other over the life of the
peer, across connections; the last one then goes on. A tuple of actions is done in one go. It is written
on plain sockets because it has to break the protocol, which a real server's library would not let it.

Other processes use ``python -m tests.peer --port 0 --script '{"rcpt": [[250], [550, "5.1.1 no"]]}'``.
It prints a line of JSON with its port, then one for every copy.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import email
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Say:
    """Answer with a code and a text; a newline in the text makes a reply of several lines."""

    code: int
    text: str = "ok"


@dataclass(frozen=True)
class Raw:
    """Answer with these octets."""

    data: bytes


@dataclass(frozen=True)
class Drip:
    """Answer one octet at a time, this many seconds apart."""

    data: bytes
    every: float = 0.05


@dataclass(frozen=True)
class Endless:
    """Repeat these octets until the client goes away."""

    data: bytes = b"250-and another thing\r\n"


@dataclass(frozen=True)
class Silence:
    """Say nothing until the client goes away or the peer is stopped."""


@dataclass(frozen=True)
class Close:
    """Close the connection; with ``reset`` by a RST, as a crash or a firewall does."""

    reset: bool = False


@dataclass(frozen=True)
class Take:
    """Keep the copy, before anything is said. ``Say`` with 2xx after a text keeps it anyway."""


Action = Say | Raw | Drip | Endless | Silence | Close | Take
Actions = Action | tuple[Action, ...]
Stage = Actions | list[Actions]


OFFERED = ["8BITMIME", "SMTPUTF8", "SIZE 10485760", "ENHANCEDSTATUSCODES"]
"""The extensions of a script that names none."""


@dataclass
class Script:
    """What the peer does. A field that is not given behaves well."""

    greeting: Stage = Say(220, "peer.test ESMTP")
    ehlo: Stage | None = None  # given: instead of the list of extensions
    helo: Stage = Say(250, "peer.test")
    starttls: Stage = Say(220, "2.0.0 go ahead")
    auth: Stage | None = None  # given: instead of comparing with the credentials
    mail: Stage = Say(250, "2.1.0 ok")
    rcpt: Stage = Say(250, "2.1.5 ok")
    data: Stage = Say(354, "go ahead")
    in_text: Stage | None = None  # done as soon as the first octets of the text arrived
    text: Stage = Say(250, "2.0.0 taken")
    rset: Stage = Say(250, "2.0.0 ok")
    quit: Stage = (Say(221, "2.0.0 bye"), Close())
    extensions: Sequence[str] = field(default_factory=lambda: list(OFFERED))
    credentials: tuple[str, str] | None = None  # given: AUTH is offered and MAIL needs it
    mechanisms: str = "PLAIN LOGIN"
    tls: ssl.SSLContext | None = None  # given: STARTTLS is offered
    implicit_tls: bool = False


@dataclass(frozen=True)
class Copy:
    """One message the peer took, ``data`` as it was before dot-stuffing."""

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    data: bytes
    options: str = ""


class _Gone(Exception):
    """This connection is over."""


@dataclass
class SmtpPeer:
    """Listens on 127.0.0.1 while its ``with`` block runs. ``port`` 0 takes a free one.

    ``turns`` counts how often it had to wait for what the client says next, having said something itself:
    the round trips. Each takes ``latency`` seconds more. ``open_now`` is how many connections there are,
    ``most_at_once`` how many there were; ``resumed`` says of each TLS handshake whether it took up an
    earlier session.
    """

    script: Script = field(default_factory=Script)
    port: int = 0
    on_copy: Callable[[Copy], None] | None = None
    accepted: list[Copy] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    latency: float = 0.0
    turns: int = 0
    open_now: int = 0
    most_at_once: int = 0
    resumed: list[bool] = field(default_factory=list)

    def __enter__(self) -> SmtpPeer:
        self._used: dict[str, int] = {}
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self.sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for sock in (self._listener, *self.sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def hang_up(self) -> None:
        """Cut every connection there is, as when the machine loses its power."""
        for sock in list(self.sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def count_open(self, by: int) -> None:
        """There is a connection more, or one less."""
        with self._lock:
            self.open_now += by
            self.most_at_once = max(self.most_at_once, self.open_now)

    def count_turn(self) -> None:
        """A round trip more."""
        with self._lock:
            self.turns += 1

    def verbs(self) -> list[str]:
        """The first words of the commands, in order: ``["EHLO", "MAIL", "RCPT", …]``."""
        return [command.split(" ", 1)[0].upper() for command in self.commands]

    def next(self, stage: str) -> tuple[Action, ...]:
        """The actions whose turn it is at a stage."""
        planned = getattr(self.script, stage)
        if isinstance(planned, list):
            with self._lock:
                turn = self._used.get(stage, 0)
                self._used[stage] = turn + 1
            planned = planned[min(turn, len(planned) - 1)]
        return planned if isinstance(planned, tuple) else (planned,)

    def keep(self, copy: Copy) -> None:
        """Remember a copy."""
        self.accepted.append(copy)
        if self.on_copy:
            self.on_copy(copy)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.sockets.append(sock)
            self._start(lambda sock=sock: _Talk(self, sock).run())  # type: ignore[misc]

    def _start(self, function: Callable[[], None]) -> None:
        thread = threading.Thread(target=function, daemon=True)
        self._threads.append(thread)
        thread.start()


class _Talk:
    """One connection of the peer."""

    def __init__(self, peer: SmtpPeer, sock: socket.socket) -> None:
        self.peer, self.script, self.sock = peer, peer.script, sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # several answers are several writes
        self.buffer = b""
        self.encrypted = self.signed_in = False
        self.sender = self.options = ""
        self.recipients: list[str] = []
        self.body = b""
        self.said = False

    def run(self) -> None:
        self.peer.count_open(1)
        try:
            if self.script.implicit_tls:
                self.start_tls()
            self.do("greeting")
            while True:
                self.obey(self.read_line())
        except (_Gone, OSError):
            pass
        finally:
            self.peer.count_open(-1)
            self.sock.close()

    def obey(self, line: str) -> None:
        self.peer.commands.append(line)
        verb, _, rest = line.partition(" ")
        handler = getattr(self, f"on_{verb.lower()}", None)
        if handler is None:
            self.say(Say(502, "5.5.2 unknown"))
        else:
            handler(rest)

    def on_ehlo(self, _: str) -> None:
        if self.script.ehlo is not None:
            self.do("ehlo")
            return
        offers = ["peer.test", *self.script.extensions]
        if self.script.tls and not self.encrypted:
            offers.append("STARTTLS")
        if self.script.credentials:
            offers.append(f"AUTH {self.script.mechanisms}")
        self.say(Say(250, "\n".join(offers)))

    def on_helo(self, _: str) -> None:
        self.do("helo")

    def on_starttls(self, _: str) -> None:
        if self.do("starttls") == 220:
            self.start_tls()

    def on_auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        if mechanism.upper() == "LOGIN":
            given = (self.ask("VXNlcm5hbWU6"), self.ask("UGFzc3dvcmQ6"))
        else:
            _, user, password = base64.b64decode(initial).decode().split("\0")
            given = (user, password)
        if self.script.auth is not None:
            self.do("auth")
            return
        self.signed_in = given == self.script.credentials
        self.say(Say(235, "2.7.0 welcome") if self.signed_in else Say(535, "5.7.8 wrong password"))

    def on_mail(self, rest: str) -> None:
        if self.script.credentials and not self.signed_in:
            self.say(Say(530, "5.7.0 sign in first"))
        elif self.do("mail") == 250:
            self.sender, self.options = _path(rest)
            self.recipients = []

    def on_rcpt(self, rest: str) -> None:
        if self.do("rcpt") // 100 == 2:
            self.recipients.append(_path(rest)[0])

    def on_data(self, _: str) -> None:
        if self.do("data") != 354:
            return
        if self.script.in_text is not None:
            if not self.buffer:
                self.receive()
            self.do("in_text")
        while not self.buffer.startswith(b".\r\n") and b"\r\n.\r\n" not in self.buffer:
            self.receive()
        text, _dot, self.buffer = (b"\r\n" + self.buffer).partition(b"\r\n.\r\n")
        self.body = text.replace(b"\r\n..", b"\r\n.")[2:] + b"\r\n"
        self.do("text", taking=True)

    def on_rset(self, _: str) -> None:
        self.sender, self.recipients = "", []
        self.do("rset")

    def on_quit(self, _: str) -> None:
        self.do("quit")

    def do(self, stage: str, taking: bool = False) -> int:
        """Do what the script says; answer the code that was said, 0 if none was."""
        code, taken = 0, False
        for action in self.peer.next(stage):
            if taking and not taken and (isinstance(action, Take) or _code_of(action) // 100 == 2):
                taken = True
                self.take()
            code = _code_of(action) or code
            self.say(action)
        return code

    def say(self, action: Action) -> None:
        self.said = True
        if isinstance(action, Say):
            self.sock.sendall(_lines(action))
        elif isinstance(action, Raw):
            self.sock.sendall(action.data)
        elif isinstance(action, Drip):
            for octet in action.data:
                self.sock.sendall(bytes([octet]))
                if self.peer.stopping.wait(action.every):
                    raise _Gone
        elif isinstance(action, Endless):
            while True:
                self.sock.sendall(action.data)
        elif isinstance(action, Silence):
            while self.sock.recv(65536):
                pass
            raise _Gone
        elif isinstance(action, Close):
            if action.reset:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Gone

    def ask(self, challenge: str) -> str:
        self.say(Say(334, challenge))
        return base64.b64decode(self.read_line()).decode()

    def take(self) -> None:
        message_id = str(email.message_from_bytes(self.body).get("Message-ID", ""))
        self.peer.keep(Copy(message_id, self.sender, tuple(self.recipients), self.body, self.options))

    def start_tls(self) -> None:
        assert self.script.tls is not None
        self.sock = self.script.tls.wrap_socket(self.sock, server_side=True)
        self.peer.resumed.append(bool(self.sock.session_reused))
        self.peer.sockets.append(self.sock)
        self.encrypted, self.buffer = True, b""

    def read_line(self) -> str:
        while b"\r\n" not in self.buffer:
            self.receive()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode(errors="replace")

    def receive(self) -> None:
        received = self.sock.recv(65536)
        if not received:
            raise _Gone
        if self.said:
            self.said = False
            self.peer.count_turn()
            self.peer.stopping.wait(self.peer.latency)
        self.buffer += received


def _code_of(action: Action) -> int:
    if isinstance(action, Say):
        return action.code
    data = action.data if isinstance(action, (Raw, Drip)) else b""
    return int(data[:3]) if data[:3].isdigit() else 0


def _lines(action: Say) -> bytes:
    *first, last = action.text.split("\n")
    lines = [f"{action.code}-{line}" for line in first] + [f"{action.code} {last}"]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _path(rest: str) -> tuple[str, str]:
    """The address and the options of ``FROM:<a@b> SIZE=1``."""
    path, _, options = rest.partition(":")[2].partition("> ")
    return path.strip().removeprefix("<").removesuffix(">"), options


def script_from(plan: dict[str, Any]) -> Script:
    """A script from JSON: a stage is a list of actions; ``[code, text]``, ``"close"``, ``"silence"``, …"""
    known = {f.name for f in dataclasses.fields(Script)}
    given: dict[str, Any] = {}
    for stage, actions in plan.items():
        if stage not in known:
            raise ValueError(f"no such stage: {stage}")
        given[stage] = actions if stage == "extensions" else [_actions_from(a) for a in actions]
    return Script(**given)


def _actions_from(plan: Any) -> Actions:
    """One turn: ``[550, "no"]``, ``"close"``, ``"reset"``, ``"silence"``, ``"take"``, or ``{"all": […]}``."""
    words: dict[str, Action] = {"close": Close(), "reset": Close(True), "silence": Silence(), "take": Take()}
    if isinstance(plan, dict):
        return tuple(a for part in plan["all"] for a in [_actions_from(part)] if not isinstance(a, tuple))
    return words[plan] if isinstance(plan, str) else Say(*plan)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.peer", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", default="{}", help="JSON: stage -> list of actions")
    options = parser.parse_args(arguments)

    def tell(copy: Copy) -> None:
        shown = {**dataclasses.asdict(copy), "data": copy.data.decode("latin-1")}
        print(json.dumps(shown), flush=True)

    with SmtpPeer(script_from(json.loads(options.script)), options.port, tell) as peer:
        print(json.dumps({"port": peer.port}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
