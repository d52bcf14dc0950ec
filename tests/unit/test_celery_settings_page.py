"""The page of Celery's settings says what broker.py sets: every name, every value, no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from mailer import broker
from mailer.config import Settings

PAGE = (Path(__file__).parents[2] / "docs/explanation/celery-settings.md").read_text("utf-8")


def table(heading: str) -> dict[str, object]:
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section, re.MULTILINE)
    return {name: ast.literal_eval(value) for name, value in rows}


def test_every_setting_has_its_row():
    """CE3: the reason stands beside each setting, also where people read."""
    assert table("Settings") == broker.CELERY_SETTINGS


@pytest.mark.parametrize(
    ("heading", "options"),
    [
        ("The worker's connection to Redis", broker._REDIS_WORKER),
        ("The publisher's connection", broker._REDIS_PUBLISHER),
        ("In memory", broker._MEMORY),
    ],
)
def test_every_transport_option_has_its_row(heading, options):
    """CE6: the timeouts on the page are those of the sockets."""
    assert table(heading) == options


def test_the_waits_on_the_page_are_the_defaults():
    """What a lost wake-up or worker costs is told in numbers that are true."""
    told = dict(re.findall(r"`MAILER_([A-Z_]+)` \((\d+)\)", PAGE))
    defaults = {name: Settings.model_fields[name.lower()].default for name in told}
    assert len(told) == 3
    assert {name: float(value) for name, value in told.items()} == defaults
