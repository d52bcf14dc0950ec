"""The documentation is true: what there is stands in it, what it links to is there, and its code runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from mailer import inbox, outbox, retention, send_email, suppressions
from mailer.calls import message_for
from mailer.cli import group, mailer
from mailer.config import PREFIX, Settings
from mailer.delivery import deliver
from mailer.errors import MailerError
from mailer.events import Event
from mailer.inbox import Mailbox, create_inbox_app
from mailer.message import Message
from mailer.origin import SIMULATOR, Origin
from mailer.replies import MEANINGS, RULES, Blame, Meaning, Rule
from mailer.replies.providers import SOURCES
from mailer.states import FINAL, TRANSITIONS, State
from mailer.transports import Reply, Result, Stage
from tests.delivery.conftest import build

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
WITH_CODE = [ROOT / "README.md", DOCS / "quickstart.md", *sorted(DOCS.glob("how-to/*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def text(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def rows(page: str) -> dict[str, str]:
    """The tables of a page: what stands in the first cell, to the rest of its row."""
    found = re.findall(r"^\| (.+?) \| (.*) \|$", text(page), re.MULTILINE)
    return {first: rest for first, rest in found if not first.startswith("---")}


def words(cell: str) -> set[str]:
    """What is written as code in a cell."""
    return set(re.findall(r"`([^`]+)`", cell))


# Settings


def row_of(name: str) -> str:
    """The row a setting must have; paste it into the page when you add one."""
    field = Settings.model_fields[name]
    default = ",".join(map(str, field.default)) if isinstance(field.default, list) else field.default
    shown = "" if default in (None, "") else f"`{default}`"
    return f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name):
    """The settings page says of each what config.py says: default and meaning."""
    assert row_of(name) in text("reference/settings.md").splitlines()


def test_no_setting_is_documented_that_does_not_exist():
    """No page names a setting that is gone."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for page in PAGES:
        named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", page.read_text("utf-8")))
        assert named <= known, name_of(page)


# The command line


def commands(command: click.Command = mailer, path: str = "mailer") -> dict[str, click.Command]:
    if not isinstance(command, click.Group):
        return {path: command}
    subs = command.commands.items()
    own = {path: command} if command.invoke_without_command else {}
    return own | {k: v for name, sub in subs for k, v in commands(sub, f"{path} {name}").items()}


def options(command: click.Command) -> set[str]:
    return {opt for p in command.params if isinstance(p, click.Option) for opt in p.opts if p.name != "help"}


def test_every_command_is_documented_with_its_options():
    """The page of the command line has a section for each command and a row for each option."""
    sections = dict(re.findall(r"^### (mailer .+?)\n(.*?)(?=^##|\Z)", text("reference/cli.md"), re.M | re.S))
    assert set(sections) == set(commands())
    for name, command in commands().items():
        cells = "".join(re.findall(r"^\| (.+?) \|", sections[name], re.MULTILINE))
        documented = {word.split()[0] for word in words(cells)}
        assert documented == options(command), name


def test_exit_codes_are_documented():
    """Each code of the program has a row, and no other."""
    codes = (
        group.DONE,
        group.NOT_SENT,
        group.BAD_INPUT,
        group.NOT_FOUND,
        group.WRONG_STATE,
        group.NOT_SET_UP,
        group.UNDER_WAY,
    )
    assert [int(code) for code in re.findall(r"^\| (\d) \|", text("reference/cli.md"), re.M)] == list(codes)


# send_email


def test_every_argument_of_send_email_is_documented():
    """What delay takes stands on its page, and nothing else does."""
    import inspect

    ours = {"now", "lanes", "max_recipients", "blocked_types"}
    taken = (set(inspect.signature(Message.create).parameters) - ours) | {"session"}
    section = text("reference/send_email.md").partition("## What it answers")[0]
    documented = set().union(*(words(cell) for cell in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)))
    assert documented == taken


def test_exceptions_on_the_page_are_public():
    """The page of send_email names exceptions that a caller can import."""
    import mailer as package

    section = text("reference/send_email.md").partition("## What it raises")[2]
    for name in re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE):
        assert issubclass(getattr(package, name), MailerError)


# States and events


def test_the_state_diagram_is_the_table_of_transitions():
    """Read the diagram again after you change states.py: it is what people go by."""
    arrows = re.findall(r"^    (\S+) --> (\w+): (.+)$", text("explanation/states.md"), re.MULTILINE)
    drawn = {(name, start, end) for start, end, names in arrows for name in names.split(", ")}
    spelled = {
        (name, start, end)
        for name, (starts, ends) in TRANSITIONS.items()
        for start in (starts or {"[*]"})
        for end in ends
    }
    assert drawn == {(name, str(start), str(end)) for name, start, end in spelled}


def test_every_state_is_explained():
    """The page says of each state what it means, and which of them are final."""
    table = rows("explanation/states.md")
    assert {s.value for s in State} <= {word for cell in table for word in words(cell)}
    assert {s.value for s in State if table[f"`{s.value}`"].endswith("| yes")} == {s.value for s in FINAL}
    assert {f"`{name}`" for name in TRANSITIONS} <= set(table)


def test_every_event_is_documented():
    """No event is without its row."""
    documented = {word for cell in rows("reference/events.md") for word in words(cell)}
    assert {event.value for event in Event} <= documented


def test_events_hold_no_key_that_is_not_documented(tmp_path):
    """What is really written stands on the page: every event of a busy day, key by key."""
    from datetime import timedelta

    from mailer import Mailer
    from mailer.store import queries

    app = build(tmp_path, Mailer(), name="busy", MAILER_CRASH_LIMIT=1)
    services = app.extensions["mailer"]
    table = rows("reference/events.md")
    documented = {name: words(table[f"`{name}`"]) for name in Event}
    documented["deferred"] |= documented["sent"] | {"blame", "not_before"}
    documented["failed"] |= documented["sent"]
    documented["uncertain"] |= documented["sent"]
    answers = {
        "sent": Result(Stage.TEXT, Reply(250, "ok"), text_sent=True),
        "deferred": Result(Stage.RCPT, Reply(450, "later")),
        "failed": Result(Stage.RCPT, Reply(550, "no")),
        "uncertain": Result(Stage.TEXT, text_sent=True, problem="lost"),
    }
    hello = {"subject": "Hi", "text": "Hello", "on_uncertain": "hold"}
    ids = []
    with app.app_context():
        for answer in answers.values():
            services.transport.answer = lambda _, answer=answer: answer
            ids.append(send_email.delay(to="a@x.test", **hello).id)
            deliver(services, ids[-1])
        ids.append(outbox.resend(services, ids[0], by="eve"))
        outbox.retry(services, ids[2], by="eve")
        outbox.settle(services, ids[3], outcome=State.SENT, by="eve")
        ids.append(send_email.delay(to="a@x.test", countdown=60, expires_in=60, **hello).id)
        outbox.reschedule(services, ids[-1], send_at=_later(timedelta(seconds=30)), by="eve")
        outbox.cancel(services, ids[-1], by="eve")
        ids.append(send_email.delay(to="a@x.test", expires_in=60, **hello).id)
        services.transport.transmit = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            deliver(services, ids[4])
        suppressions.add(services, "off@x.test", by="eve")
        ids.append(send_email.delay(to="off@x.test", **hello).id)
        both = ["delivered@resend.dev", "complained@resend.dev"]
        unwanted = message_for(services, None, to=both, **hello)
        ids.append(outbox.accept(services, unwanted, origin=Origin(carrier=SIMULATOR)))
        deliver(services, ids[-1])
        ids.append(send_email.delay(to="gone@x.test", **hello).id)
        retention.forget(services, "gone@x.test", by="eve")
        services.now = lambda: _later(timedelta(minutes=2))
        outbox.reap_and_expire(services)
    seen: dict[str, set[str]] = {}
    with services.store.read() as connection:
        for id_ in ids:
            for event in queries.show(connection, id_).events:
                seen.setdefault(event.name, set()).update(event.data)
    assert set(seen) == {event.value for event in Event}
    for name, keys in seen.items():
        assert keys <= documented[name], name


def _later(span):
    from mailer.services import utc_now

    return utc_now() + span


def test_every_log_line_is_documented():
    """What is logged stands on the page, so that people can search for it and alert on it."""
    calls = r'\blog\.(?:debug|info|warning|error|log)\(\s*(?:level, )?"([\w.]+)'
    source = "\n".join(p.read_text("utf-8") for p in (ROOT / "mailer").rglob("*.py"))
    documented = {word for cell in rows("reference/events.md") for word in words(cell)}
    assert set(re.findall(calls, source)) <= documented
    ended = {State.SENT, State.DEFERRED, State.FAILED, State.UNCERTAIN, State.EXPIRED}
    assert {f"mail.{state}" for state in ended} <= documented


# Servers' answers


def rule_row(rule: Rule) -> str:
    """The row a rule must have; paste it into the page when you add one."""
    cells = [code(rule.stages), code(rule.codes) or "any", code(rule.enhanced), rule.does, rule.source]
    return f"| {' | '.join(cells)} |"


def meaning_row(meaning: Meaning) -> str:
    """The row a meaning must have."""
    says = ", ".join(f"`{phrase}`" for phrase in meaning.says)
    blame = f"`{meaning.blame}`" + (", suppression candidate" if meaning.suppress else "")
    words = f"{meaning.means}; {meaning.step.format(setting='the URL')}"
    cells = [code(meaning.stages) or "any", code(meaning.codes) or "any", code(meaning.enhanced), says]
    return f"| {' | '.join([*cells, f'`{meaning.reason}`', blame, words, meaning.source])} |"


def code(pattern: str) -> str:
    return " ".join(f"`{word}`" for word in pattern.split())


def test_every_row_about_answers_is_documented_in_order():
    """The page has the rows that the code goes by, all of them, in the order in which they are looked at."""
    lines = text("reference/replies.md").splitlines()
    shown = [line for line in lines if line.startswith(("| `", "| any |")) and line.count(" | ") > 2]
    assert shown == [*map(rule_row, RULES), *map(meaning_row, MEANINGS)]
    blames = rows("reference/replies.md")
    assert {f"`{blame}`" for blame in Blame} <= set(blames)


def test_every_source_about_answers_is_linked():
    """A provider's name in a row leads to the page where it says so; no source is without a row."""
    for name, (title, address) in SOURCES.items():
        assert f"| {name} | [{title}]({address}) |" in text("reference/replies.md")
        assert any(name in row.source for row in MEANINGS), name


# The inbox


def test_every_recipient_that_misbehaves_is_documented():
    """The page has the recipients of the package's own table."""
    table = re.findall(r"^(``.+?)  +\w", inbox.__doc__, re.MULTILINE)
    named = {word for cell in table for word in re.findall(r"``([^`]+)``", cell)}
    assert len(named) > 8
    assert named <= {word for cell in rows("reference/inbox.md") for word in words(cell)}


def test_every_address_of_the_inbox_api_is_documented(tmp_path):
    """The page has the routes of the API, with their methods, and no others."""
    app = create_inbox_app(Mailbox(tmp_path / "inbox.db"))
    shown = {"<mail_id>": "{ID}", "<part_id>": "{PART}"}
    routes = set()
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/") or rule.rule in ("/livez", "/readyz"):
            path = re.sub(r"<\w+>", lambda found: shown[found[0]], rule.rule)
            routes |= {f"{method} {path}" for method in rule.methods - {"HEAD", "OPTIONS"}}
    cells = {word for cell in rows("reference/inbox.md") for word in words(cell)}
    assert {cell for cell in cells if " /" in cell} == routes


# Links


def anchors(page: Path) -> set[str]:
    """What headings can be linked by, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", _without_code(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.replace("`", "")).strip().lower().replace(" ", "-") for h in headings}


def _without_code(markdown: str) -> str:
    return re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    """Every link to a file or a heading of ours leads there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_can_be_found():
    """The index links to every page."""
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", text("README.md"))}
    assert set(DOCS.rglob("*.md")) - {DOCS / "README.md"} <= linked


# Code


class Block(NamedTuple):
    line: int
    language: str
    how: str
    code: str


def blocks(page: Path) -> list[Block]:
    markdown = page.read_text("utf-8")
    found = re.finditer(r"^```(\w+) ?(.*?)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    return [Block(markdown[: m.start()].count("\n") + 1, m[1], m[2], m[3]) for m in found]


RUNNER = """
import json, subprocess, sys
sys.path.insert(0, ".")
names = {"__name__": "__main__"}
for place, code in json.load(sys.stdin):
    if isinstance(code, list):
        subprocess.run([sys.executable, "-m", *code], check=True)
    else:
        exec(compile(code, place, "exec"), names)
"""


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_code_runs(page, tmp_path):
    """The blocks of a page, in order, in an empty folder; see CONTRIBUTING.md for what a fence may say."""
    steps: list[tuple[str, str | list[str]]] = []
    for block in blocks(page):
        place = f"{name_of(page)}:{block.line}"
        if block.language == "python":
            compile(block.code, place, "exec")
        if block.how.startswith("file="):
            target = tmp_path / block.how.removeprefix("file=")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.code, "utf-8")
        elif block.language == "console":
            steps += [(place, command) for command in flask_commands(block.code, tmp_path)]
        elif block.language == "python":
            assert block.how in ("", "no-run"), place
            steps += [] if block.how else [(place, block.code)]
    tests = list(tmp_path.glob("test_*.py"))
    if tests:
        quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(tmp_path)]
        done(["-m", "pytest", *quiet, str(tmp_path)], tmp_path)
    for module in {*tmp_path.glob("*.py")} - {*tests, tmp_path / "conftest.py"}:
        steps.append((module.name, f"import {module.stem}"))  # what nothing runs must at least import
    done(["-c", RUNNER], tmp_path, input=json.dumps(steps))


def flask_commands(console: str, folder: Path) -> list[list[str]]:
    """Commands on an application that the page has made, but for a worker that runs until stopped."""
    lines = [shlex.split(line)[1:] for line in console.splitlines() if line.startswith("$ flask --app ")]
    here = [line for line in lines if (folder / f"{line[2]}.py").exists()]
    return [line for line in here if "worker" not in line or "--once" in line]


def done(arguments: list[str], folder: Path, smtp_url: str = "memory://", **options: str) -> str:
    environment = {**os.environ, "MAILER_SMTP_URL": smtp_url}
    command = [sys.executable, "-W", "error", *arguments]
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, **options
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page):
    """Every mailer command on a page exists, and takes the options it is given there."""
    for block in blocks(page):
        for line in block.code.splitlines() if block.language in ("console", "ini") else ():
            check_command(shlex.split(line, comments=True))


def _alone(command: click.Group, arguments: list[str]) -> bool:
    return command.invoke_without_command and (not arguments or arguments[0].startswith("-"))


def check_command(line: list[str]) -> None:
    starts = [n for n, word in enumerate(line) if word == "mailer" and line[n - 1] != "-A"]
    if not starts or not any(word.endswith(("flask", "mailer")) for word in line[: starts[0] + 1]):
        return
    command: click.Command = mailer
    arguments = line[starts[0] + 1 :]
    while isinstance(command, click.Group) and not _alone(command, arguments):
        assert arguments[0] in command.commands, line
        command = command.commands[arguments.pop(0)]
    assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= options(command), line


def test_the_readme_is_true(tmp_path):
    """The application of the README, its two commands, and the mail that comes of it."""
    [shop] = [b for b in blocks(ROOT / "README.md") if b.how == "file=shop.py"]
    (tmp_path / "shop.py").write_text(shop.code, "utf-8")
    flask = ["-m", "flask", "--app", "shop", "mailer"]
    join = "import shop; print(shop.create_app().test_client().post('/join').text)"
    with inbox.Inbox(tmp_path / "inbox.db", smtp_port=0, web_port=0) as box:
        url = f"smtp://127.0.0.1:{box.smtp_port}"
        assert "The store is at" in done([*flask, "db", "upgrade"], tmp_path, url)
        assert "empty" not in done([*flask, "db", "current"], tmp_path, url), "the application's own database"
        assert done(["-c", join], tmp_path, url) == "Welcome!\n"
        assert done([*flask, "worker", "--once"], tmp_path, url) == "Made 1 attempt.\n"
        [mail] = box.mailbox.wait_for(1)
        assert "sent" in done([*flask, "list"], tmp_path, url)
    assert mail.to[0].address == "ada@shop.example"
