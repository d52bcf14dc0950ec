#!/usr/bin/env python3
"""One door to everything a developer does here. Needs Python 3.11 or later, and nothing installed.

    python3 make.py dev [OPTIONS]     start Mailer: web, worker, inbox (mailer dev --help)
    python3 make.py test [ARGS]       run the tests; ARGS go to pytest
    python3 make.py check             lint, formatting, types
    python3 make.py bench [NAME]      measure: beside the plain recipe and a peer, or what NAME says;
                                      `bench log`, 5,000,000 messages, takes long and runs by name only
    python3 make.py faults [OPTIONS]  break what can break while mails go out, and count every copy
    python3 make.py lock [--upgrade]  write requirements/*.txt anew from pyproject.toml
    python3 make.py clean             remove .venv and caches; never the data in .mailer

The first command makes .venv beside this file and installs what it needs there, each download checked
against the hashes in requirements/. Later ones see that nothing has changed and hand over at once.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # older ones must still be able to read this file
    sys.exit(f"Mailer needs Python 3.11 or later, this is {sys.version.split()[0]}. Try: python3.11 make.py")
if sys.platform == "win32":
    sys.exit("Mailer runs on Linux and macOS. On Windows, run this inside WSL.")

import difflib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
MODULE = [str(PYTHON), "-m"]
UNFINISHED = VENV / ".unfinished"
"""There while something is being installed: a run that finds it knows the last one was cut short."""

WHAT = {
    "run": "what Mailer needs",
    "test": "what the tests need",
    "check": "the linters",
    "bench": "what Mailer is compared with",
    "lock": "the resolver",
}
"""The groups of requirements. Each has its own file and its own stamp."""

MEASURES = ("api", "backlog", "compare", "lock", "log", "shares", "signup")
"""What `bench` can measure: modules of that folder."""


def dev(args: list[str]) -> None:
    ensure("run")
    hand_over([str(VENV / "bin" / "mailer"), "dev", *args])


def test(args: list[str]) -> None:
    ensure("run", "test")
    # Whole modules go to one process, so what a module sets up is set up once. "-n 0" for a debugger.
    hand_over([*MODULE, "pytest", "-n", "2", "--dist", "loadscope", "--no-loadscope-reorder", *args])


def check(_args: list[str]) -> None:
    ensure("run", "test", "check")  # the types of mailer.testing are pytest's
    tools = (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"])
    failed = [" ".join(tool) for tool in tools if subprocess.call([*MODULE, *tool], cwd=ROOT)]
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


def bench(args: list[str]) -> None:
    """Measure: `bench` compares, `bench signup` takes the time from a sign-up to its mail.

    `bench log` takes half an hour at its full size, and is no part of `bench` alone.
    """
    if args[:2] == ["--only", "log"]:
        args = args[1:]
    if not args or args[0].startswith("-"):
        args = ["compare", *args]
    if args[0] not in MEASURES:
        sys.exit(f"Choose what to measure: python3 make.py bench {' | '.join(MEASURES)}")
    ensure("run", "test", *(["bench"] if args[0] in ("api", "compare") else []))  # its servers, and its peers
    hand_over([*MODULE, f"bench.{args[0]}", *args[1:]])


def faults(args: list[str]) -> None:
    """Storms: `faults --only worker-kill` raises one of them."""
    ensure("run", "test")
    hand_over([*MODULE, "tests.faults.storms", *args])


def lock(args: list[str]) -> None:
    ensure("lock")
    # Universal: one file for every Python and system. No index: whoever installs has their own.
    uv = [*MODULE, "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    uv += ["--generate-hashes", "--no-emit-index-url", "--no-annotate", *args]
    uv += ["--custom-compile-command", "python3 make.py lock"]
    same = ["--constraints", "requirements/run.txt"]  # one version of a thing, whoever needs it
    for group, options in {
        "run": ["pyproject.toml", "--extra", "postgres", "--group", "build"],
        "test": ["--group", "test", *same],
        "check": ["--group", "check", *same],
        "bench": ["--group", "bench", *same],
        "lock": ["--group", "lock"],
    }.items():
        target = f"requirements/{group}.txt"
        subprocess.run([*uv, *options, "--output-file", target], cwd=ROOT, check=True)
        print(f"Wrote {target}")


def clean(_args: list[str]) -> None:
    caches = [".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "build", "dist", "*.egg-info"]
    found = [path for name in [".venv", *caches] for path in ROOT.glob(name)]
    found += [path for part in ("mailer", "tests", "bench") for path in (ROOT / part).rglob("__pycache__")]
    for path in found:
        shutil.rmtree(path)
    print(f"Removed {len(found)} folders. Kept the data in .mailer, if there is any.")


def ensure(*groups: str) -> None:
    """Bring .venv up to date with these groups; costs milliseconds when it is."""
    if ready(groups):
        return
    with Path(__file__).open("rb") as door:
        # Two at once would install into one folder. The lock is on this file: the folder may be made anew.
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another make.py is installing: waiting for it.", flush=True)
            fcntl.flock(door, fcntl.LOCK_EX)
        if not usable():
            create_venv()
        for group in groups:
            if not ready([group]):
                install(group)


def ready(groups: Sequence[str]) -> bool:
    return usable() and all(read(stamp_file(group)) == fingerprint(group) for group in groups)


def usable() -> bool:
    """Whether .venv is whole and made by this Python, as far as can be told without running it."""
    made_by = f"version = {sys.version_info.major}.{sys.version_info.minor}."
    return not UNFINISHED.exists() and PYTHON.exists() and made_by in read(VENV / "pyvenv.cfg")


def fingerprint(group: str) -> str:
    """What must be unchanged for the group to count as installed: our entry points, the pins, the place."""
    parts = [sys.version, str(ROOT), read(ROOT / "requirements" / f"{group}.txt")]
    if group == "run":
        parts.append(read(ROOT / "pyproject.toml"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def stamp_file(group: str) -> Path:
    return VENV / f".installed-{group}"


def read(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def create_venv() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("This Python cannot make a .venv. On Debian or Ubuntu: apt-get install python3-venv")
    if UNFINISHED.exists():
        print("The last install was interrupted: starting it afresh.")
    # The interpreter this one stems from: started as .venv/bin/python, it would delete itself.
    base = getattr(sys, "_base_executable", sys.executable)
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    UNFINISHED.touch()
    step("Creating .venv (once)", [base, "-m", "venv", str(VENV)])
    UNFINISHED.unlink()


def install(group: str) -> None:
    stamp_file(group).unlink(missing_ok=True)
    UNFINISHED.touch()
    try:
        pip(f"Installing {WHAT[group]} (once)", "--require-hashes", "-r", f"requirements/{group}.txt")
        if group == "run":
            # Nothing to resolve or fetch: the requirements brought setuptools along.
            pip("Installing Mailer itself", "--no-deps", "--no-build-isolation", "-e", ".")
    except SystemExit:
        UNFINISHED.unlink()  # pip failed by itself and has put everything back
        raise
    stamp_file(group).write_text(fingerprint(group))
    UNFINISHED.unlink()


def pip(what: str, *options: str) -> None:
    step(what, [*MODULE, "pip", "install", "--quiet", "--disable-pip-version-check", *options])


def step(what: str, command: list[str]) -> None:
    """Run a command quietly; if it fails, show all it said, and stop."""
    print(f"{what} ... ", end="", flush=True)
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(f"failed.\n\n{done.stdout}\nThe command was: {' '.join(command)}", flush=True)
        sys.exit(
            "Its last lines say why. If they speak of connections: can this machine reach a package index\n"
            "(pip config list names it)? Put that right and run the same command again; it goes on from here."
        )
    print(f"{time.monotonic() - began:.1f} s", flush=True)


def hand_over(command: list[str]) -> None:
    """Become the command: Ctrl-C and the exit code are its own."""
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execv(command[0], command)


DOORS = (dev, test, check, bench, faults, lock, clean)
COMMANDS: dict[str, Callable[[list[str]], None]] = {door.__name__: door for door in DOORS}


def main(argv: list[str]) -> None:
    name, args = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("help", "-h", "--help"):
        print(__doc__)
    elif name in COMMANDS:
        COMMANDS[name](args)
    else:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"Did you mean {close[0]}?" if close else f"Choose one of: {', '.join(COMMANDS)}."
        print(f"{__doc__}\n{f'No command {name!r}. ' if name else ''}{hint}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
