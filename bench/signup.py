"""From pressing "sign up" to the mail in the inbox, on the embedded default.

Starts ``mailer dev`` in an empty folder, signs up as a browser does (page, CSRF token, cookie, form) and
asks the inbox until the mail is there. Prints the median and the spread in milliseconds::

    python3 make.py bench signup
"""

from __future__ import annotations

import argparse
import http.cookiejar
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

PAUSE_SECONDS = 0.002  # between two looks into the inbox; adds half of it to each figure
MOST_ROUNDS = 35  # the service allows 40 requests a minute from one address


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, choices=range(5, MOST_ROUNDS + 1), metavar="N")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        web, inbox, smtp = free_ports(3)
        process = start(Path(folder), web, inbox, smtp)
        try:
            figures = [sign_up(web, inbox, f"person{n}@example.com") for n in range(rounds)]
        finally:
            process.terminate()
            process.wait(10)
    report(figures)
    return 0


def start(folder: Path, web: int, inbox: int, smtp: int) -> subprocess.Popen[bytes]:
    ports = {"MAILER_WEB_PORT": web, "MAILER_INBOX_PORT": inbox, "MAILER_INBOX_SMTP_PORT": smtp}
    environment = {**os.environ, **{name: str(port) for name, port in ports.items()}}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailer", "dev"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    give_up = time.monotonic() + 30
    while "Press Ctrl-C" not in (folder / "log").read_text():
        if process.poll() is not None or time.monotonic() > give_up:
            raise SystemExit((folder / "log").read_text())
        time.sleep(0.05)
    return process


def sign_up(web: int, inbox: int, address: str) -> float:
    """Milliseconds from sending the form to finding the mail."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    url = f"http://127.0.0.1:{web}/signup"
    page = browser.open(url).read().decode()
    fields = dict(re.findall(r'<input[^>]*name="(\w+)"[^>]*value="([^"]*)"', page))
    secrets = re.findall(r'<input[^>]*name="(\w*password\w*)"', page)
    fields |= {"email": address} | dict.fromkeys(secrets, "a long enough pass phrase")
    form = urllib.request.Request(url, urllib.parse.urlencode(fields).encode(), {"Referer": url})
    search = f"http://127.0.0.1:{inbox}/api/v1/search?query=to:{address}"
    started = time.perf_counter()
    # The answer waits for a fixed moment so that its time tells nothing; the mail does not wait for it.
    answer = threading.Thread(target=lambda: browser.open(form).read())
    answer.start()
    while not json.load(urllib.request.urlopen(search))["messages"]:
        if time.perf_counter() - started > 10:
            raise SystemExit(f"no mail to {address} within 10 s")
        time.sleep(PAUSE_SECONDS)
    found = time.perf_counter()
    answer.join()
    return (found - started) * 1000


def report(figures: list[float]) -> None:
    ordered = sorted(figures)
    print(f"sign-up to inbox, {len(figures)} rounds, embedded default")
    print(f"  median {statistics.median(ordered):6.0f} ms   (goal: under 200)")
    print(f"  p90    {ordered[int(len(ordered) * 0.9)]:6.0f} ms")
    print(f"  range  {ordered[0]:6.0f} to {ordered[-1]:.0f} ms")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


if __name__ == "__main__":
    sys.exit(main())
