"""Real clients, unmodified: Django's backend, nodemailer, and the programs of the page as they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import not_had
from tests.submission.process import queued_as

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "how-to" / "send-by-smtp.md"


def ran(door, command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PORT": str(door.port), "KEY": door.key}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def arrived(door, subject: str):
    [mail] = [mail for mail in door.mails() if mail.subject == subject]
    return door.arrived(mail), mail


def test_django(door, tmp_path):
    """Alternatives, files, people, mass mail on one connection, a recipient that is refused."""
    told = json.loads(ran(door, [sys.executable, str(HERE / "django_client.py")], tmp_path))
    assert told == {"sent": [1, 3], "refused": 553}
    door.deliver()
    mail, envelope = arrived(door, "From Django: Grüße 🎉")
    assert set(envelope.recipients) == {"ada@example.test", "c@example.test", "d@example.test"}
    assert (mail["Cc"], mail["Reply-To"], mail["X-A"], mail["X-Tags"]) == (
        "c@example.test",
        "r@acme.test",
        "ä",
        None,
    )
    assert mail.get_body(("plain",)).get_content().strip() == "Grüße"
    assert mail.get_body(("html",)).get_content().strip() == "<p>Grüße</p>"
    assert [(part.get_filename(), part.get_content()) for part in mail.iter_attachments()] == [
        ("Grüße.txt", "hällo"),
        ("a.pdf", b"%PDF\0\xff"),
    ]
    assert {f"Mass {number}" for number in range(3)} <= {mail.subject for mail in door.mails()}


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory) -> Path:
    """A folder with the npm package, each file checked against the hashes of the lock."""
    if not (shutil.which("node") and shutil.which("npm")):
        not_had("no Node: apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(HERE / "node" / name, folder)
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    got = subprocess.run(npm, cwd=folder, capture_output=True, text=True, timeout=100)
    if got.returncode:
        not_had("no npm package nodemailer: npm ci cannot fetch it")
    return folder


def test_nodemailer(door, node_modules):
    """Flowed text, an image in the html, list and thread headers, a pool, errors with their codes."""
    told = json.loads(ran(door, ["node", "client.mjs"], node_modules))
    queued_as(told["response"].removeprefix("250 ").encode())
    assert told["many"] == 10
    assert told["errors"] == {"invitation": ["EMESSAGE", 554], "repeated": ["EMESSAGE", 554]}
    door.deliver()
    mail, envelope = arrived(door, "From Node: Grüße 🎉")
    assert set(envelope.recipients) == {"ada@example.test", "c@example.test", "d@example.test"}
    assert (mail["X-A"], mail["In-Reply-To"], mail["References"], mail["List-Unsubscribe"]) == (
        "ä",
        "<1@x.test>",
        "<0@x.test> <1@x.test>",
        "<https://acme.test/u>",
    )
    assert mail.get_body(("plain",)).get_content().splitlines() == ["a word " * 30, "Grund"]
    image = next(part for part in mail.walk() if part.get_content_type() == "image/png")
    assert (image["Content-ID"], image.get_content_disposition(), image.get_content()) == (
        "<logo>",
        "inline",
        b"hi",
    )
    assert [part.get_filename() for part in mail.iter_attachments()] == ["Grüße.txt"]


# The page


def block(language: str) -> str:
    return re.findall(rf"^```{language}.*?\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)[0]


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_page_is_true(door, language, request, tmp_path):
    """Its programs send their mails, with this door's port and key in their places."""
    program = block(language).replace("2525", str(door.port)).replace("re_...", door.key)
    assert (program.count(str(door.port)), program.count(door.key)) == (1, 1)
    folder = tmp_path if language == "python" else request.getfixturevalue("node_modules")
    (folder / "page.mjs").write_text(program)
    ran(door, [sys.executable, "-c", program] if language == "python" else ["node", "page.mjs"], folder)
    door.deliver()
    arrived(door, f"Sent with {'Python' if language == 'python' else 'Node'}")
