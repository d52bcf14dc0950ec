"""Imports point one way, and what faces the outside stays behind one door.

The source is read, not run, so an import inside a function counts too; only those under
``if TYPE_CHECKING:`` do not. Each rule names the accident that it prevents.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mailer"
MOST_LINES = 400


@dataclass(frozen=True)
class Layer:
    """Modules that may import each other and everything in the layers before theirs."""

    name: str
    modules: str
    prevents: str


# A new module goes into the first layer that holds all it imports; a package is one module here. Modules
# of this table that do not exist (yet) do no harm.
LAYERS = [
    Layer(
        "words",
        "states errors events message context timing address headers attachment secret config sealing"
        " telemetry lanes origin control_headers labels",
        "a migration, a template or another program that needs a word would get a database with it",
    ),
    Layer(
        "resources",
        "store transports replies retry broker mime dkim encoding reading rendering template_env"
        " template_check template_errors links nesting inlining plain_text framing breaker tally places"
        " slowdown limits counts listening"
        " providers outward fetching scheduling",
        "a resource that knows a use case can only be tested, or replaced, together with it",
    ),
    Layer(
        "services",
        "services",
        "what holds the resources of an application would decide what is done with them",
    ),
    Layer(
        "use cases",
        "outbox delivery composing outcomes ledger job drain leases heartbeat sweeper retention bounces"
        " courier webhooks operators second_factor carriers calls keys suppressions"
        " admission",
        "mail could be accepted or delivered only where there is a Celery or a web request",
    ),
    Layer(
        "tasks",
        "tasks",
        "a worker would load the pages, and a page could change what a task does",
    ),
    Layer(
        "extension",
        "extension",
        "an application that only wants to send mail would get our console and its log-in",
    ),
    Layer(
        "public names",
        "mailer",
        "`import mailer` would load pages and programs that most applications never use",
    ),
    Layer(
        "pages",
        "web inbox submission",
        "the pages could not be put into another application than ours",
    ),
    Layer(
        "service",
        "app",
        "building the application would parse a command line",
    ),
    Layer(
        "commands",
        "cli dev worker memory supervisor doctor testing __main__",
        "nothing: these are the last",
    ),
]

# These pairs share a layer and must not know each other, in either direction.
STRANGERS = {
    (
        "store",
        "transports",
    ): "what was decided could not be recorded without opening a mail server's connection",
    (
        "store",
        "rendering",
    ): "a row could not be written without templates, or a template would query the database",
    (
        "web",
        "inbox",
    ): "the inbox is a mail server for trying things out and must not come into production pages",
    (
        "submission",
        "inbox",
    ): "the door that asks for keys could be mixed up with the one that takes everything",
    (
        "submission",
        "web",
    ): "one door could not be opened without the other, and a rule would hold at one of them only",
}

# Where a foreign name may be imported: files and folders of the package.
GATEWAYS = {
    "sqlalchemy": ("store/", "a slow or wrong query could hide anywhere"),
    "alembic": ("store/", "our migrations could be run by, or run, those of a host application"),
    "smtplib": ("transports/smtp.py", "a connection without certificate check or timeout could be opened"),
    "aiosmtpd": ("inbox/ submission/", "mail could be taken by SMTP where nobody asks for a key"),
    "flask_mail": ("transports/smtp.py", "Flask-Mail by itself accepts any certificate and waits for ever"),
    "celery": (
        "tasks.py extension.py broker.py app.py dev.py testing.py worker.py",
        "a message could be put into a queue without being in the store",
    ),
    "kombu": (
        "tasks.py extension.py broker.py app.py dev.py testing.py worker.py",
        "a message could be put into a queue without being in the store",
    ),
    "flask.request": ("web/ inbox/", "a use case that reads the request works in no worker and no shell"),
}


def test_every_module_has_a_place() -> None:
    """A module that no layer names is not checked by anything, so its author has to place it."""
    homeless = sorted({module_of(file) for file in sources()} - placed())
    assert not homeless, f"put these into LAYERS in {Path(__file__).name}, as low as they can be: {homeless}"


def test_imports_point_one_way() -> None:
    """A module imports what lies in its own layer or below."""
    wrong = [
        f"{found}, which lies above it: {LAYERS[rank(found.by)].prevents}"
        for found in own_imports()
        if rank(found.of) > rank(found.by)
    ]
    assert not wrong, listed(wrong)


def test_strangers_do_not_meet() -> None:
    """Some modules of a layer know nothing of each other."""
    wrong = [
        f"{found}: {prevents}"
        for found in own_imports()
        for strangers, prevents in STRANGERS.items()
        if {found.by, found.of} == set(strangers)
    ]
    assert not wrong, listed(wrong)


def test_imports_run_in_no_circle() -> None:
    """Within a layer, too, there is a first file to read, and a next one that builds on it."""
    graph: dict[str, set[str]] = {}
    for found in own_imports():
        graph.setdefault(dotted(found.file), set()).add(file_behind(found.name))
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("a circle of imports: " + " ← ".join(error.args[1]))


@pytest.mark.parametrize("foreign", GATEWAYS)
def test_one_gateway_per_outside_thing(foreign: str) -> None:
    """Each outside thing is imported in one place, where it is made safe."""
    gateway, prevents = GATEWAYS[foreign]
    wrong = [
        f"{found}, which only {gateway} may: {prevents}"
        for file in sources()
        for found in imports_of(file)
        if is_within(found.name, foreign)
        and not file.relative_to(PACKAGE).as_posix().startswith(tuple(gateway.split()))
    ]
    assert not wrong, listed(wrong)


def test_no_module_is_too_long_to_read() -> None:
    """A file that answers one question has an end in sight."""
    long = {str(file.relative_to(ROOT)): file.read_text("utf-8").count("\n") for file in sources()}
    long = {name: lines for name, lines in long.items() if lines > MOST_LINES}
    assert not long, f"more than {MOST_LINES} lines; find the second question in it and move that out: {long}"


def test_public_names_are_sorted_and_exist() -> None:
    """``__all__`` lists each public name once, where the eye looks for it."""
    for file in sources():
        for names in [ast.literal_eval(node.value) for node in parsed(file).body if assigns_all(node)]:
            assert names == sorted(set(names), key=kind_and_name), (
                f"{file.relative_to(ROOT)}: sort __all__, each name once"
            )
            unbound = set(names) - set(names_bound_in(file))
            assert not unbound, f"{file.relative_to(ROOT)}: __all__ names what is not there: {unbound}"


def test_the_reader_sees_every_kind_of_import(tmp_path: Path) -> None:
    """The tests above are only worth what the reader below finds."""
    file = tmp_path / "sample.py"
    file.write_text(
        """
import celery.app
from flask import Flask, request as r
from mailer import outbox
if TYPE_CHECKING:
    from mailer import app
else:
    import alembic
def late():
    from sqlalchemy.orm import Session
    return flask.request
"""
    )
    assert sorted(found.name for found in imports_of(file)) == [
        *("alembic", "celery.app", "flask.Flask", "flask.request", "flask.request", "mailer.outbox"),
        "sqlalchemy.orm.Session",
    ]


# Reading the source


@dataclass(frozen=True)
class Import:
    """One imported name, dotted, as far as the source tells: ``mailer.store.models.messages``."""

    file: Path
    line: int
    name: str

    @property
    def by(self) -> str:
        """The module of ours that imports."""
        return module_of(self.file)

    @property
    def of(self) -> str:
        """The module of ours that is imported; names in the package itself belong to ``mailer``."""
        part = f"{self.name}.".split(".")[1]
        return part if part in {module_of(file) for file in sources()} | placed() else "mailer"

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"


def placed() -> set[str]:
    return {module for layer in LAYERS for module in layer.modules.split()}


@cache
def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    """``store`` for mailer/store/models.py, ``states`` for mailer/states.py, ``mailer`` for the package."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "mailer" if first == "__init__" else first


def dotted(file: Path) -> str:
    """``mailer.store`` for mailer/store/__init__.py, ``mailer.store.models`` for mailer/store/models.py."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def file_behind(name: str) -> str:
    """The longest beginning of an imported name that is a file of ours."""
    ours = {dotted(file) for file in sources()}
    while name not in ours:
        name = name.rpartition(".")[0] or "mailer"
    return name


def rank(module: str) -> int:
    """The number of the module's layer; the last one for a module that has no place yet."""
    ranks = [number for number, layer in enumerate(LAYERS) if module in layer.modules.split()]
    return ranks[0] if ranks else len(LAYERS) - 1


def own_imports() -> list[Import]:
    return [found for file in sources() for found in imports_of(file) if is_within(found.name, "mailer")]


def is_within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


@cache
def imports_of(file: Path) -> list[Import]:
    return [Import(file, line, name) for line, name in names_in(parsed(file), file)]


def names_in(node: ast.AST, file: Path) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        parts: list[ast.AST] = list(node.orelse)
    else:
        parts = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from ((node.lineno, f"{origin(node, file)}.{alias.name}") for alias in node.names)
    elif isinstance(node, ast.Attribute) and ast.unparse(node) == "flask.request":
        yield node.lineno, "flask.request"  # reached through `import flask`
    for part in parts:
        yield from names_in(part, file)


def origin(node: ast.ImportFrom, file: Path) -> str:
    """The module after ``from``, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    folder = file.parents[node.level - 1].relative_to(ROOT)
    return ".".join([*folder.parts, *([node.module] if node.module else [])])


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), file.name)


def assigns_all(node: ast.stmt) -> TypeGuard[ast.Assign]:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]


def kind_and_name(name: str) -> tuple[int, str]:
    """Ruff's order (RUF022): constants, classes, the rest."""
    return 0 if name.isupper() else 1 if name[0].isupper() else 2, name


def names_bound_in(file: Path) -> Iterator[str]:
    for node in parsed(file).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (
                name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
            )


def listed(wrong: list[str]) -> str:
    return "\n".join(["", *wrong])
