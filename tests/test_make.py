"""make.py installs once, notices what changed, heals what was cut short, and gets out of the way.

Each test has a copy of it in a folder with a ``.venv`` whose programs only write down how they were
called, so nothing is downloaded and the time measured is make.py's own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> "{log}"
if [ -n "$SLOW" ]; then sleep "$SLOW"; fi
echo "it said this"
exit ${{FAIL:-0}}
"""


class Project:
    """A copy of the project with a pretended .venv."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "called"
        for name in ("make.py", "pyproject.toml"):
            shutil.copy(ROOT / name, root)
        shutil.copytree(ROOT / "requirements", root / "requirements")
        programs = root / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name in ("python", "mailer"):
            (programs / name).write_text(PROGRAM.format(log=self.log))
            (programs / name).chmod(0o755)
        version = ".".join(map(str, sys.version_info[:3]))
        (root / ".venv" / "pyvenv.cfg").write_text(f"version = {version}\n")

    def command(self, *args: str) -> list[str]:
        return [sys.executable, str(self.root / "make.py"), *args]

    def make(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.unlink(missing_ok=True)
        return subprocess.run(
            self.command(*args), capture_output=True, text=True, env=os.environ | environment, check=False
        )

    def start(self, *args: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start make.py in a process group of its own, as a shell would: Ctrl-C ends it.

        Whoever runs the tests in the background may have told us to ignore that, and children inherit it.
        """
        return subprocess.Popen(
            self.command(*args),
            env=os.environ | environment,
            process_group=0,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def wait_for_pip(self) -> None:
        deadline = time.monotonic() + 10
        while not self.called:
            assert time.monotonic() < deadline, "pip was not called"
            time.sleep(0.01)

    def loaded(self) -> Any:
        """The copy of make.py as a module in this process."""
        spec = importlib.util.spec_from_file_location("make", self.root / "make.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def steps_of_next_run(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What a run of ``dev`` would do before it hands over, without doing it."""
        steps: list[str] = []
        make = self.loaded()
        monkeypatch.setattr(make, "step", lambda what, command: steps.append(what))
        make.ensure("run")
        return steps

    @property
    def called(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def installs(self) -> list[str]:
        """What pip was asked for, a word each: the requirements file, or ``.`` for the package itself."""
        return [line.rpartition(" ")[2] for line in self.called if " -m pip install " in line]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_dev_installs_nothing_but_what_runs(project: Project) -> None:
    """The first start installs the hashed requirements and the package, and then becomes ``mailer dev``."""
    done = project.make("dev", "--port", "1")
    assert (done.returncode, project.installs()) == (0, ["requirements/run.txt", "."])
    assert "--require-hashes" in project.called[0]
    assert "--no-build-isolation" in project.called[1], "an isolated build would fetch setuptools unchecked"
    assert project.called[2:] == ["mailer dev --port 1"]
    assert "Installing what Mailer needs (once) ... 0." in done.stdout


def test_each_command_adds_its_own_group(project: Project) -> None:
    """Who only runs Mailer never waits for pytest; who then runs the tests waits for nothing twice."""
    project.make("dev")
    project.make("test", "-k", "one")
    assert project.installs() == ["requirements/test.txt"]
    assert project.called[-1] == "python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -k one"
    project.make("faults", "--only", "peer")
    assert project.called == ["python -m tests.faults.storms --only peer"]
    project.make("check")
    assert project.installs() == ["requirements/check.txt"]
    assert project.called[1:] == ["python -m ruff check", "python -m ruff format --check", "python -m mypy"]


def test_the_second_start_takes_under_a_second(project: Project) -> None:
    """From the shell to the handing over; the best of three, since other programs run here too."""
    project.make("dev")
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        done = project.make("dev")
        seconds.append(time.monotonic() - began)
        assert done.stdout == "it said this\n"
        assert project.called == ["mailer dev"]
    assert min(seconds) < 1


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ("pyproject.toml", ["requirements/run.txt", "."]),
        ("requirements/run.txt", ["requirements/run.txt", "."]),
        ("requirements/test.txt", ["requirements/test.txt"]),
        ("requirements/check.txt", []),
    ],
)
def test_a_change_is_noticed(project: Project, changed: str, again: list[str]) -> None:
    """A group is installed again when what it was made from has changed, and only then."""
    project.make("test")
    with (project.root / changed).open("a") as file:
        file.write("\n# changed\n")
    project.make("test")
    assert project.installs() == again


def test_a_failed_install_says_what_pip_said_and_is_tried_again(project: Project) -> None:
    """Nothing is handed over to, and the next run goes on from there."""
    done = project.make("dev", FAIL="3")
    assert done.returncode == 1
    assert "it said this" in done.stdout
    assert "package index" in done.stderr
    assert project.called[1:] == []
    project.make("dev")
    assert project.installs() == ["requirements/run.txt", "."]
    assert project.called[-1] == "mailer dev"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=lambda end: end.name)
def test_an_interrupted_install_is_started_afresh(
    project: Project, end: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was cut short may look whole to pip, so the next run makes a new .venv."""
    with project.start("dev", SLOW="30") as first:
        project.wait_for_pip()
        os.killpg(first.pid, end)
    assert project.steps_of_next_run(monkeypatch) == [
        "Creating .venv (once)",
        "Installing what Mailer needs (once)",
        "Installing Mailer itself",
    ]
    assert not (project.root / ".venv" / "bin").exists(), "the old one is gone"
    assert not (project.root / ".venv" / ".unfinished").exists()


def test_the_environment_of_another_python_is_not_used(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packages were built for that one."""
    (project.root / ".venv" / "pyvenv.cfg").write_text("version = 3.9.18\n")
    assert project.steps_of_next_run(monkeypatch)[0] == "Creating .venv (once)"


def test_two_at_once_install_once(project: Project) -> None:
    """The second waits for the first, and then finds nothing to do."""
    with project.start("dev", SLOW="0.5") as first:
        project.wait_for_pip()
        second = subprocess.run(project.command("dev"), capture_output=True, text=True, check=False)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "Another make.py is installing: waiting for it." in second.stdout
    assert len(project.installs()) == 2


def test_the_exit_code_is_that_of_the_command(project: Project) -> None:
    """What runs in the end has replaced make.py, so it answers for itself."""
    project.make("dev")
    assert project.make("dev", FAIL="7").returncode == 7


def test_check_names_what_failed(project: Project) -> None:
    """One finding does not hide the next tool's."""
    project.make("check")
    done = project.make("check", FAIL="1")
    assert done.returncode == 1
    assert "Failed: ruff check, ruff format --check, mypy" in done.stderr


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["tset"], "No command 'tset'. Did you mean test?"),
        (
            ["frobnicate"],
            "No command 'frobnicate'. Choose one of: dev, test, check, bench, faults, lock, clean.",
        ),
        ([], "Choose one of: dev, test, check, bench, faults, lock, clean."),
    ],
)
def test_bad_usage_is_answered_with_usage(project: Project, args: list[str], hint: str) -> None:
    """Exit code 2, nothing installed."""
    done = project.make(*args)
    assert (done.returncode, project.called) == (2, [])
    assert "python3 make.py dev" in done.stderr
    assert done.stderr.endswith(f"{hint}\n")


def test_help_is_no_mistake(project: Project) -> None:
    """Asked for, usage goes to standard output."""
    done = project.make("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python3 make.py dev" in done.stdout


def test_an_old_python_is_told_what_is_needed(project: Project) -> None:
    """The first line a stranger may see is a sentence, not a traceback."""
    pretend = "import runpy, sys; sys.version_info = (3, 10); runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", pretend, *project.command()[1:]], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Mailer needs Python 3.11 or later")


def test_a_python_without_venv_is_told_what_to_install(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian keeps what makes environments in a package of its own."""
    shutil.rmtree(project.root / ".venv")
    make = project.loaded()
    monkeypatch.setattr(make.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="apt-get install python3-venv"):
        make.ensure("run")


def test_clean_keeps_the_data(project: Project) -> None:
    """Accepted mails are no cache."""
    for name in (".mailer", ".pytest_cache", "build"):
        (project.root / name).mkdir()
    project.make("clean")
    left = {path.name for path in project.root.iterdir()}
    assert left == {"make.py", "pyproject.toml", "requirements", ".mailer"}


@pytest.mark.parametrize("group", ["run", "test", "check", "lock"])
def test_the_pins_cover_what_is_declared(group: str) -> None:
    """Whoever adds a dependency also runs ``make.py lock``; the files name versions and hashes, no host."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = declared["dependency-groups"]["build" if group == "run" else group]
    if group == "run":
        project = declared["project"]
        wanted = wanted + project["dependencies"] + project["optional-dependencies"]["postgres"]
    text = (ROOT / "requirements" / f"{group}.txt").read_text("utf-8")
    pinned = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    missing = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in wanted} - pinned
    assert not missing, f"run python3 make.py lock: requirements/{group}.txt lacks {missing}"
    assert "://" not in text
    assert "index-url" not in text
    assert len(re.findall(r" \\\n    --hash=sha256:", text)) >= len(pinned)
