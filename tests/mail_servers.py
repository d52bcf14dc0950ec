"""Real mail servers for the tests: Postfix and Exim as Debian ships them, on loopback ports of their own.

``with postfix(next_hop) as server:`` and ``with exim(next_hop, certificate) as server:`` run one until the
block ends. It puts what is for ``box.test`` into a Maildir, knows no ``unknown@box.test``, and passes
everything else on by SMTP to the port ``next_hop``: nothing leaves the machine, no name is looked up, and no
file of the system's own mail server is read or written.

As Debian packages the two exclude each other, so neither has to be installed: ``TEST_POSTFIX`` and
``TEST_EXIM`` name folders they are unpacked in. Started as a program, this file fetches both, from where apt
gets packages.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers import Missing, free_port, running, scratch_folder, wait_until

MOST_OCTETS = 1_000_000
"""The largest mail that the servers take, and say they do."""
DELIVER_SECONDS = 40
MOST_IN_RECORD = 255
"""Octets of a text in Exim's DNS: a longer one has several parts, which `libresolv_wrapper` cannot make."""
USER, PASSWORD = "app", "correct-Horse/+"
"""Whose mail Exim takes, once it has a certificate."""

HOW = "python3 -m tests.mail_servers FOLDER, then TEST_POSTFIX=FOLDER TEST_EXIM=FOLDER; see CONTRIBUTING.md"

# What the two put on top of a mail that they take and deliver.
_TRACE = re.compile(
    rb"(Return-Path|X-Original-To|Delivered-To|Envelope-To|Delivery-Date|Received):"
    rb"[ \t]*((?:[^\n]|\n[ \t])*)\n",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Kept:
    """A mail that arrived: for whom by the envelope, and ``trace``, what servers put on top of its text."""

    recipient: str
    data: bytes
    trace: bytes


@dataclass(frozen=True)
class MailServer:
    """One that runs; ``folder`` holds all it writes."""

    port: int
    folder: Path
    queues: tuple[Path, ...]

    def mailbox(self) -> list[Kept]:
        """What it has delivered to ``box.test``, with CRLF at the ends of lines."""
        return [kept(path.read_bytes()) for path in sorted(self.folder.glob("mail/new/*"))]

    def wait(self) -> None:
        """Return when it has delivered or passed on all it took. Raises RuntimeError with its log."""
        deadline = time.monotonic() + DELIVER_SECONDS
        while any(path.is_file() for queue in self.queues for path in queue.rglob("*")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server still has mails in its queue, its log says:\n{self.log()}")
            time.sleep(0.05)

    def log(self) -> str:
        """What it has written down so far."""
        return (self.folder / "log" / "mainlog").read_text("utf-8", "replace")


def kept(stored: bytes) -> Kept:
    """A file of a Maildir, which has LF at the ends of lines."""
    trace, text = parted(stored)
    fields = {name.lower(): value.decode() for name, value in _TRACE.findall(trace)}
    recipient = fields.get(b"delivered-to") or fields[b"envelope-to"]
    return Kept(recipient, text.replace(b"\n", b"\r\n"), trace)


def parted(data: bytes) -> tuple[bytes, bytes]:
    """A mail before the first header field that no server put there, and from there on."""
    at = 0
    while field := _TRACE.match(data, at):
        at = field.end()
    return data[:at], data[at:]


# Postfix


@contextlib.contextmanager
def postfix(next_hop: int, certificate: Path | None = None) -> Iterator[MailServer]:
    """A Postfix that takes mail from anybody on this machine, and offers TLS if it has a certificate."""
    root = root_of("TEST_POSTFIX", "usr/lib/postfix/sbin/master", "Postfix")
    if os.geteuid() != 0:
        raise Missing("no Postfix: only root can start one")
    with scratch_folder() as folder:
        port = free_port()
        lay_out_postfix(folder)
        write_main_cf(folder, root, next_hop, certificate)
        (folder / "etc" / "master.cf").write_text(MASTER_CF.replace("PORT", str(port)))
        (folder / "etc" / "mailboxes").write_text("if !/^unknown@/\n/@box\\.test$/ mail/\nendif\n")
        environment = {"LD_LIBRARY_PATH": root / "usr/lib/postfix", "MAIL_CONFIG": folder / "etc"}
        with group([*env(environment), root / "usr/lib/postfix/sbin/master", "-d"], folder) as server:
            wait_until(lambda: greets(port), server, folder)
            queues = ("maildrop", "incoming", "active", "deferred")
            yield MailServer(port, folder, tuple(folder / "queue" / name for name in queues))


def lay_out_postfix(folder: Path) -> None:
    """The folders it wants. Its own script for that looks at those of an installed Postfix too."""
    owner, group = pwd.getpwnam(POSTFIX_USER).pw_uid, grp.getgrnam(POSTFIX_GROUP).gr_gid
    for name in ("etc", "log", "mail", "queue", "queue/pid"):
        (folder / name).mkdir()
    own = "active bounce corrupt defer deferred flush hold incoming private saved trace maildrop public"
    for path in [folder / "data", *(folder / "queue" / name for name in own.split())]:
        path.mkdir(mode=0o700)
        os.chown(path, owner, -1)
    for name, mode in {"maildrop": 0o730, "public": 0o710}.items():
        os.chown(folder / "queue" / name, owner, group)
        (folder / "queue" / name).chmod(mode)
    os.chown(folder / "mail", pwd.getpwnam("nobody").pw_uid, -1)
    folder.chmod(0o755)  # its daemons are not root for long


def write_main_cf(folder: Path, root: Path, next_hop: int, certificate: Path | None) -> None:
    nobody = pwd.getpwnam("nobody")
    given: dict[str, object] = {"folder": folder, "programs": root / "usr", "next_hop": next_hop}
    given |= {"nobody_uid": nobody.pw_uid, "nobody_gid": nobody.pw_gid}
    if certificate is not None:
        given |= {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": certificate}
    lines = [f"{name} = {value}\n" for name, value in given.items()]
    (folder / "etc" / "main.cf").write_text("".join(lines) + MAIN_CF)
    # It waits for a file to come of age, in case somebody still writes it.
    os.utime(folder / "etc" / "main.cf", (0, 0))


POSTFIX_USER, POSTFIX_GROUP = "mail", "uucp"
"""Two that every Debian has and that own nothing: those of the package come when it is installed."""

MAIN_CF = f"""
compatibility_level = 3.6
command_directory = $programs/sbin
daemon_directory = $programs/lib/postfix/sbin
shlib_directory = no
queue_directory = $folder/queue
data_directory = $folder/data
mail_owner = {POSTFIX_USER}
setgid_group = {POSTFIX_GROUP}
default_privs = nobody
import_environment = MAIL_CONFIG LD_LIBRARY_PATH
maillog_file = $folder/log/mainlog
maillog_file_prefixes = $folder/log

myhostname = mx.box.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtp_host_lookup = native
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
message_size_limit = {MOST_OCTETS}

mydestination =
alias_maps =
alias_database =
virtual_mailbox_domains = box.test
virtual_mailbox_base = $folder
virtual_mailbox_maps = regexp:$folder/etc/mailboxes
virtual_mailbox_limit = 0
virtual_uid_maps = static:$nobody_uid
virtual_gid_maps = static:$nobody_gid
default_transport = smtp:[127.0.0.1]:$next_hop
"""

MASTER_CF = """
127.0.0.1:PORT inet n - n - - smtpd
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
error     unix - - n - - error
retry     unix - - n - - error
virtual   unix - n n - - virtual
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
tlsmgr    unix - - n 1000? 1 tlsmgr
postlog   unix-dgram n - n - 1 postlogd
"""


# Exim


@contextlib.contextmanager
def exim(
    next_hop: int, certificate: Path | None = None, records: Mapping[str, str] | None = None
) -> Iterator[MailServer]:
    """An Exim that knows no 8BITMIME. If it has a certificate, it wants TLS and the password first.

    It verifies DKIM signatures; ``records`` is all of the DNS that it sees: a text for each name. It has
    no privileges: root's tests start it as ``nobody``.
    """
    root = root_of("TEST_EXIM", "usr/sbin/exim4", "Exim")
    user = "nobody" if os.geteuid() == 0 else None
    with scratch_folder(user) as folder:
        port = free_port()
        lay_out_exim(folder, root, user)
        write_exim_conf(folder, port, next_hop, certificate)
        texts = "".join(f"TXT {name} {text}\n" for name, text in (records or {}).items())
        (folder / "dns").write_text(texts or "TXT nothing.test nothing\n")
        # In the foreground. Each second a queue runner delivers what came meanwhile, mail after mail.
        exim4 = [folder / "exim4", "-C", folder / "exim.conf", "-bdf", "-q1s"]
        with group([*env(exim_environment(folder)), *exim4], folder, user) as server:
            wait_until(lambda: greets(port), server, folder)
            yield MailServer(port, folder, (folder / "spool" / "input",))


def lay_out_exim(folder: Path, root: Path, user: str | None) -> None:
    """A copy of the program without its set-user-id bit, its libraries, and folders for what it writes."""
    shutil.copyfile(root / "usr/sbin/exim4", folder / "exim4")
    (folder / "exim4").chmod(0o755)
    owner = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    for name in ("lib", "log", "mail", "spool"):
        (folder / name).mkdir()
        os.chown(folder / name, owner.pw_uid, owner.pw_gid)
    wanted = "lib*_wrapper.so" if root == Path("/") else "lib*.so*"
    for library in root.glob(f"usr/lib/*/{wanted}"):
        shutil.copyfile(library, folder / "lib" / library.name)
    if not all((folder / "lib" / wrapper).exists() for wrapper in WRAPPERS):
        raise Missing(f"no Exim: it needs {' '.join(WRAPPER_PACKAGES)}; apt-get install them, or {HOW}")
    # It does not start without the user it was built for, which is there if the package is installed.
    (folder / "passwd").write_text(f"Debian-exim:x:{owner.pw_uid}:{owner.pw_gid}::/:/bin/false\n")
    (folder / "group").write_text(f"Debian-exim:x:{owner.pw_gid}:\n")


def exim_environment(folder: Path) -> dict[str, object]:
    """What makes it find its libraries, its user, and our records."""
    users = {"NSS_WRAPPER_PASSWD": folder / "passwd", "NSS_WRAPPER_GROUP": folder / "group"}
    libraries = {"LD_LIBRARY_PATH": folder / "lib", "LD_PRELOAD": ":".join(WRAPPERS)}
    return {**libraries, **users, "RESOLV_WRAPPER_HOSTS": folder / "dns"}


WRAPPERS = ("libnss_wrapper.so", "libresolv_wrapper.so")
WRAPPER_PACKAGES = ("libnss-wrapper", "libresolv-wrapper")


def write_exim_conf(folder: Path, port: int, next_hop: int, certificate: Path | None) -> None:
    given = {"THE_FOLDER": folder, "THE_PORT": port, "NEXT_HOP": next_hop, "MOST_OCTETS": MOST_OCTETS}
    if certificate is not None:
        shutil.copyfile(certificate, folder / "server.pem")
        given |= {"THE_CERTIFICATE": folder / "server.pem", "THE_USER": USER, "THE_PASSWORD": PASSWORD}
    lines = [f"{name} = {value}\n" for name, value in given.items()]
    (folder / "exim.conf").write_text("".join(lines) + EXIM_CONF)


EXIM_CONF = r"""
exim_path = THE_FOLDER/exim4
spool_directory = THE_FOLDER/spool
log_file_path = THE_FOLDER/log/%slog
pid_file_path = THE_FOLDER/exim.pid
keep_environment = ^LD_ : ^NSS_WRAPPER_ : ^RESOLV_WRAPPER_
deliver_drop_privilege = true
log_selector = +smtp_connection +pipelining +dkim_verbose +smtp_protocol_error +smtp_syntax_error

primary_hostname = mx.box.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = THE_PORT
host_lookup =
rfc1413_query_timeout = 0s
accept_8bitmime = false
message_size_limit = MOST_OCTETS
queue_only = true
acl_smtp_mail = mail
acl_smtp_rcpt = rcpt
.ifdef THE_CERTIFICATE
tls_certificate = THE_CERTIFICATE
.else
tls_advertise_hosts =
.endif

begin acl

mail:
.ifdef THE_CERTIFICATE
  deny !authenticated = *
       message = 5.7.0 log in first
.endif
  accept

rcpt:
  deny domains = box.test
       local_parts = unknown
       message = 5.1.1 Unknown user
  accept

begin authenticators

.ifdef THE_CERTIFICATE
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = ${if def:tls_in_cipher}
  server_prompts = :
  server_condition = ${if and {{eq {$auth2} {THE_USER}} {eq {$auth3} {THE_PASSWORD}}}}
  server_set_id = $auth2
.endif

begin routers

mailbox:
  driver = accept
  domains = box.test
  transport = mailbox

next_hop:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = next_hop

begin transports

mailbox:
  driver = appendfile
  maildir_format
  directory = THE_FOLDER/mail
  envelope_to_add
  return_path_add
  delivery_date_add

next_hop:
  driver = smtp
  port = NEXT_HOP
"""


# What both need


def root_of(variable: str, program: str, name: str) -> Path:
    """The folder a package is unpacked in; / if it is installed."""
    root = Path(os.environ.get(variable) or "/").resolve()
    if not (root / program).exists():
        raise Missing(f"no {name}: {HOW}")
    return root


def env(variables: Mapping[str, object]) -> list[object]:
    """The beginning of a command that is run with these variables."""
    return ["/usr/bin/env", *(f"{name}={value}" for name, value in variables.items())]


@contextlib.contextmanager
def group(
    command: Sequence[object], folder: Path, user: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server that has children, which end with it: they must not write into a folder that is gone.

    A shell stands before them, as Postfix changes users and so forgets whose death it was to be told of.
    """
    shell = ["/usr/bin/setsid", "/bin/sh", "-c", 'trap "kill -KILL 0" TERM; "$@" & wait $!', "sh"]
    with running([*shell, *command], folder, user=user) as server:
        yield server


def greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(4) == b"220 "
    except OSError:
        return False


# Fetching


def fetch(folder: Path) -> None:
    """Unpack both into the folder, with what they need and this machine has not installed. Needs no root."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        sys.exit("Only Debian and its kin have apt-get and dpkg-deb. Elsewhere unpack the packages by hand.")
    servers = ["postfix", "exim4-daemon-light"]
    libraries = {library for server in servers for library in libraries_of(server)}
    with tempfile.TemporaryDirectory() as downloads:
        command = ["apt-get", "download", "--quiet", *servers, *WRAPPER_PACKAGES, *sorted(libraries)]
        if subprocess.run(command, cwd=downloads).returncode:
            sys.exit("apt-get could not fetch them; its words are above. Often this helps: apt-get update")
        folder.mkdir(parents=True, exist_ok=True)
        for package in sorted(Path(downloads).glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)


def libraries_of(package: str) -> list[str]:
    """Those that installing it would bring."""
    command = ["apt-get", "install", "--simulate", "--no-install-recommends", package]
    plan = subprocess.run(command, capture_output=True, text=True).stdout
    return re.findall(r"^Inst (lib\S+)", plan, re.MULTILINE)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Name a folder: python3 -m tests.mail_servers FOLDER")
    fetch(Path(sys.argv[1]))
