"""The main job, whole, in a real browser: what a newcomer does in the first five minutes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.flows.dev_process import Dev, running

PICTURES = os.environ.get("TEST_PICTURES")
"""A folder to put pictures of every step in, for whoever wants to look."""

FIRST, SECOND = "a long pass phrase, 1", "another pass phrase, 2"
ADA = "ada@example.com"


@pytest.fixture
def dev(tmp_path):
    with running(tmp_path) as found:
        yield found


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES, f"{name}.png"), full_page=True)


def open_link(page: Page, dev: Dev, subject: str, link: str) -> Page:
    """Open the newest mail with this subject in the inbox and click its link; it opens a tab."""
    page.goto(dev.inbox)
    page.get_by_text(subject).first.click()
    picture(page, f"inbox-{link}")
    with page.context.expect_page() as opened:
        page.locator(f'a[href*="/{link}?"]').first.click()
    return opened.value


def log_in(page: Page, dev: Dev, password: str) -> None:
    page.goto(f"{dev.web}/login")
    page.get_by_label("Email address").fill(ADA)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def test_the_main_job(dev, page):
    """Sign up, verify, log out, reset, log in; then find the mail in the console and send it again."""
    page.goto(dev.web)
    page.get_by_role("main").get_by_role("link", name="Sign up").click()
    page.get_by_label("Email address").fill(ADA)
    page.get_by_label("Password").fill(FIRST)
    picture(page, "signup")
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_role("heading", name="Check your mail")).to_be_visible()
    picture(page, "check-your-mail")
    dev.wait_for_mails(1)

    log_in(page, dev, FIRST)
    expect(page.get_by_text("That did not work")).to_be_visible()

    tab = open_link(page, dev, "Confirm your email", "verify")
    picture(tab, "verify")
    tab.get_by_role("main").get_by_role("button").click()
    expect(tab.get_by_text("Your address is confirmed")).to_be_visible()
    picture(tab, "verified")
    tab.get_by_role("button", name="Log out").first.click()
    expect(tab.get_by_role("link", name="Log in").first).to_be_visible()

    page.goto(f"{dev.web}/forgot")
    page.get_by_label("Email address").fill(ADA)
    page.get_by_role("main").get_by_role("button").click()
    dev.wait_for_mails(1, "subject:Reset")
    tab = open_link(page, dev, "Reset your", "reset")
    picture(tab, "reset")
    for field in tab.locator("input[type=password]").all():
        field.fill(SECOND)
    tab.get_by_role("main").get_by_role("button").click()
    picture(tab, "reset-done")
    dev.wait_for_mails(1, "subject:changed")
    log_in(page, dev, FIRST)
    expect(page.get_by_text("That did not work")).to_be_visible()
    log_in(page, dev, SECOND)
    expect(page.get_by_text(ADA).first).to_be_visible()

    look_and_resend(page, dev)


def look_and_resend(page: Page, dev: Dev) -> None:
    """The support person's part: enter by the printed link, find the reset, look at it, press Resend."""
    [first] = dev.wait_for_mails(1, "subject:Reset")
    page.goto(dev.console_link)
    page.get_by_role("main").get_by_role("button").click()
    expect(page.get_by_role("heading", name="Messages")).to_be_visible()
    expect(page.get_by_text(ADA).first).to_be_visible()
    picture(page, "console")
    page.get_by_placeholder("Recipient").fill(ADA)
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="Reset your").first.click()
    expect(page.locator(".timeline")).to_contain_text("250")
    picture(page, "console-message")
    shown = page.frame_locator("iframe").locator("body")
    expect(shown).to_contain_text("Reset")
    expect(shown).not_to_contain_text(dev.link(first))

    page.get_by_role("button", name="Resend").first.click()
    mails = dev.wait_for_mails(2, "subject:Reset")
    expect(page.get_by_text("This is the new message")).to_be_visible()
    picture(page, "console-resent")
    links = {dev.link(mail) for mail in mails}
    assert len(links) == 2, "MF5, RT12: the second copy has a fresh link"
    assert len({mail["MessageID"] for mail in mails}) == 2
    for link in links:
        token = link.partition("token=")[2]
        assert token not in dev.log(), "AU3: no token in the log"
        for path in dev.folder.glob(".mailer/mailer.db*"):
            assert token.encode() not in path.read_bytes(), "AU3: no token in the database"
