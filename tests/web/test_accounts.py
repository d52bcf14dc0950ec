"""The account pages: what people can do, and what strangers cannot (requirements AU1 to AU14)."""

from __future__ import annotations

import logging
import re
import socket
import statistics
import threading
import time

import pytest
import time_machine

from mailer import suppressions
from mailer.store import messages as message_rows
from mailer.web.accounts_links import AccountTokens, Purpose
from tests.web.accounts_service import HOST, PASSWORD, Service

ADA = "ada@acme.test"
NEW = "another long password"


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path)


# The walk


def test_sign_up_verify_log_out_reset_and_log_in(service):
    """The newcomer's walk: each mail leads one step further."""
    ada = service.visitor()
    assert ada.sign_up(ADA).location == "/signup/sent"
    assert "Check your mail" in ada.client.get("/signup/sent").text
    assert not ada.is_in
    assert ada.open(service.link()).confirm().location == "/account"
    assert ada.is_in
    assert ADA in ada.client.get("/account").text
    token = ada.form_token("/account")
    assert ada.client.post("/logout", data={"csrf_token": token}).status_code == 303
    assert not ada.is_in
    assert ada.forget(ADA).location == "/forgot/sent"
    assert ada.open(service.link()).reset(NEW).location == "/login"
    assert ada.log_in(ADA, NEW).location == "/account"
    assert ada.is_in


def test_the_row_and_the_mail_commit_together(service):
    """A sign-up whose mail cannot be accepted leaves no account, and no account leaves no mail."""
    ada = service.visitor()
    send_email = service.app.extensions["mailer.send_email"]
    service.app.extensions["mailer.send_email"] = None
    assert ada.sign_up(ADA).status_code == 500
    assert service.rows("SELECT id FROM mailer_users") == []
    service.app.extensions["mailer.send_email"] = send_email
    assert ada.sign_up(ADA).status_code == 303
    assert len(service.rows("SELECT id FROM mailer_users")) == 1
    assert len(service.mails()) == 1


def test_the_walk_on_postgres(tmp_path, fresh_postgres_url):
    """The same statements mean the same there."""
    service = Service(tmp_path, MAILER_DATABASE_URL=fresh_postgres_url, MAILER_SECRET_KEYS="k" * 32)
    ada = service.member(ADA)
    service.visitor().sign_up(ADA)
    assert "already have an account" in service.mails()[-1]["subject"]
    service.visitor().sign_up("bob@acme.test")
    service.visitor().sign_up("bob@acme.test")
    assert len(service.rows("SELECT id FROM mailer_users")) == 2
    ada.forget(ADA)
    assert service.visitor().open(service.link()).reset(NEW).location == "/login"
    assert not ada.is_in
    assert ada.log_in(ADA, NEW).location == "/account"


def test_of_many_sign_ups_at_once_there_is_one_account(service):
    """Nobody gets an error, and the last mail's link works."""
    visitors = [service.visitor() for _ in range(10)]
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda v=v: codes.append(v.sign_up(ADA).status_code)) for v in visitors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [303] * 10
    assert len(service.rows("SELECT id FROM mailer_users")) == 1
    assert service.visitor().open(service.link()).confirm(password=NEW).location == "/account"


def test_a_stored_mail_names_the_person_and_nothing_else(service):
    """What is stored is an id: the worker mints the link."""
    service.visitor().sign_up(ADA)
    with service.services.store.read() as connection:
        id_ = connection.exec_driver_sql("SELECT id FROM mailer_messages").scalar_one()
        content, _secrets = message_rows.open_content(connection, id_, service.services.store.sealer)
    [(user_id,)] = service.rows("SELECT id FROM mailer_users")
    assert content["context"] == {"user_id": user_id, "expires_in": "24 hours"}


# AU1, AU2: who asks learns nothing


def answers(service: Service, path: str, **fields: str) -> list[object]:
    """What a browser gets for a post and on the page after it, less what differs by chance."""
    visitor = service.visitor()
    first = visitor.post(path, **fields)
    shown = [first]
    if first.location:
        shown.append(visitor.client.get(first.location))
    return [
        (
            answer.status,
            re.sub(rb'value="[^"]*"', b"", answer.data),
            sorted(
                (k, v.split("=")[0] if k == "Set-Cookie" else "" if k == "Content-Length" else v)
                for k, v in answer.headers
            ),
        )
        for answer in shown
    ]


@pytest.mark.parametrize("path", ["/forgot", "/signup", "/verify/again"])
@pytest.mark.parametrize("trouble", ["", "broker down", "mail cap"])
def test_known_unknown_unverified_and_suppressed_get_the_same_answer(tmp_path, path, trouble):
    """AU1: status, headers and body are equal, also with the broker down and past the mail cap."""
    cap = "0/hour" if trouble == "mail cap" else "1000/hour"
    limits = {f"mail.{kind}": "1000/hour" for kind in ("verify", "exists")} | {"mail.reset": cap}
    service = Service(tmp_path, RATELIMIT_ENABLED=True, ACCOUNTS_LIMITS=limits | {"ask.ip": "1000/hour"})
    service.member(ADA)
    service.visitor().sign_up("unverified@acme.test")
    service.member("gone@acme.test")
    with service.services.store.begin() as connection:
        connection.exec_driver_sql("UPDATE mailer_users SET active = 0 WHERE email = 'gone@acme.test'")
    if trouble == "broker down":
        service.services.publish = no_broker
    password = {"password": NEW} if path == "/signup" else {}
    service.member("barred@acme.test")
    suppressions.add(service.services, ["barred@acme.test", "barred-stranger@acme.test"], by="eve")
    names = ["ada", "stranger", "unverified", "gone", "barred", "barred-stranger"]
    told = [answers(service, path, email=f"{name}@acme.test", **password) for name in names]
    assert all(each == told[0] for each in told)


def no_broker(_wakeups: object) -> None:
    raise ConnectionError


def test_log_in_says_one_thing_to_all(service):
    """AU1: unknown, wrong, unverified and not even an address."""
    service.member(ADA)
    service.visitor().sign_up("unverified@acme.test")
    tries = [(ADA, "wrong"), ("no@acme.test", "wrong"), ("unverified@acme.test", PASSWORD), ("@", "wrong")]
    told = [answers(service, "/login", email=address, password=word) for address, word in tries]
    assert told[0] == told[1] == told[2] == told[3]
    assert told[0][0][0] == "400 BAD REQUEST"


@pytest.mark.parametrize("path", ["/forgot", "/login"])
def test_known_and_unknown_take_the_same_time(tmp_path, path):
    """AU2 in small: medians of interleaved pairs lie within a tenth, although one sends mail."""
    service = Service(tmp_path, ACCOUNTS_ANSWER_SECONDS=0.15)
    service.member(ADA)
    visitor = service.visitor()
    took: dict[str, list[float]] = {ADA: [], "no@acme.test": []}
    fields = {"password": "wrong"} if path == "/login" else {}
    token = visitor.form_token(path)
    for _ in range(25):
        for address, times in took.items():
            started = time.perf_counter()
            visitor.client.post(path, data={"csrf_token": token, "email": address, **fields})
            times.append(time.perf_counter() - started)
    known, unknown = map(statistics.median, took.values())
    assert abs(known - unknown) < 0.1 * unknown


# AU3 to AU6: tokens


def test_the_token_is_in_the_mail_and_nowhere_else(service, caplog):
    """AU3: not in a row, the file, the log, or what operators may look at."""
    caplog.set_level(logging.DEBUG)
    ada = service.member(ADA)
    ada.forget(ADA)
    tokens = [service.link(mail).partition("token=")[2] for mail in service.mails()]
    assert len(tokens) == 2
    assert all(len(token) >= 80 for token in tokens)
    files = b"".join(path.read_bytes() for path in service.folder.rglob("*") if path.is_file())
    with service.services.store.read() as connection:
        ids = connection.exec_driver_sql("SELECT id FROM mailer_messages").scalars().all()
        seen = [message_rows.open_content(connection, id_, service.services.store.sealer) for id_ in ids]
    for token in tokens:
        signature = token.rpartition(".")[2]
        assert signature.encode() not in files
        assert signature not in caplog.text
        assert signature not in repr(seen)


@pytest.mark.parametrize("many", [50])
def test_of_many_at_once_one_resets(service, many):
    """AU4: 50 browsers use one link in the same moment; one wins and its password is the one."""
    service.member(ADA)
    service.visitor().forget(ADA)
    link = service.link()
    browsers = [service.visitor().open(link) for _ in range(many)]
    tokens = [browser.form_token("/reset") for browser in browsers]
    answers: list[str | None] = [None] * many
    gate = threading.Barrier(many)

    def use(number: int) -> None:
        gate.wait()
        fields = {"csrf_token": tokens[number], "password": f"the password of {number}"}
        answers[number] = browsers[number].client.post("/reset", data=fields).location

    threads = [threading.Thread(target=use, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, answer in enumerate(answers) if answer == "/login"]
    assert len(winners) == 1
    assert service.visitor().log_in(ADA, f"the password of {winners[0]}").location == "/account"
    assert sum("password for Acme was changed" in mail["subject"] for mail in service.mails()) == 1


def test_a_newer_request_voids_older_links(service):
    """AU4: only the last mail's link works; the old password works until one is used."""
    ada = service.member(ADA)
    ada.forget(ADA)
    first = service.link()
    ada.forget(ADA)
    second = service.link()
    assert service.visitor().log_in(ADA).location == "/account"
    opened = service.visitor().open(first).client.get("/reset")
    assert opened.status_code == 400
    assert "does not work" in opened.text
    assert service.visitor().open(second).reset(NEW).location == "/login"
    assert service.visitor().open(second).client.get("/reset").status_code == 400


def test_changing_the_password_voids_reset_links(service):
    """AU4, AU7: a changed password ends links and other sessions, keeps this one, and is told by mail."""
    ada, elsewhere = service.member(ADA), service.visitor()
    elsewhere.log_in(ADA)
    ada.forget(ADA)
    link = service.link()
    assert ada.post("/account/password", current="wrong", password=NEW).status_code == 400
    assert ada.post("/account/password", current=PASSWORD, password=NEW).location == "/account"
    assert ada.is_in
    assert not elsewhere.is_in
    assert service.visitor().open(link).client.get("/reset").status_code == 400
    assert "was changed" in service.mails()[-1]["subject"]


def test_a_verify_link_can_be_asked_for_again(service):
    """AU4: the second link works and the first one no more."""
    ada = service.visitor()
    ada.sign_up(ADA)
    first = service.link()
    assert ada.post("/verify/again", email=ADA).location == "/signup/sent"
    assert service.visitor().open(first).client.get("/verify").status_code == 400
    assert ada.open(service.link()).confirm().location == "/account"
    assert ada.open(service.link()).client.get("/verify").status_code == 400


@pytest.mark.parametrize(("path", "seconds"), [("/reset", 3600), ("/verify", 86_400)])
@pytest.mark.parametrize(("early", "works"), [(-1, True), (1, False)])
def test_links_end_in_time(service, path, seconds, early, works):
    """AU5: a reset link works for an hour, a verify link for a day, to the second."""
    with time_machine.travel(1_900_000_000, tick=False) as clock:
        if path == "/reset":
            service.member(ADA).forget(ADA)
        else:
            service.visitor().sign_up(ADA)
        link = service.link()
        clock.shift(seconds + early)
        opened = service.visitor().open(link).client.get(path)
    assert (opened.status_code == 200) is works


def test_a_link_is_good_for_one_purpose_and_person(service):
    """AU6: a verify token resets nothing, and another's id under the same signature is refused."""
    ada = service.visitor()
    ada.sign_up(ADA)
    verify = service.link()
    service.member("bob@acme.test").forget("bob@acme.test")
    reset = service.link()
    assert service.visitor().open(verify.replace("/verify", "/reset")).client.get("/reset").status_code == 400
    assert service.visitor().open(reset.replace("/reset", "/verify")).client.get("/verify").status_code == 400
    [(ada_id,)] = service.rows(f"SELECT id FROM mailer_users WHERE email = '{ADA}'")
    forged = re.sub(r"token=[0-9a-f]+", f"token={ada_id}", reset)
    assert service.visitor().open(forged).client.get("/reset").status_code == 400


@pytest.mark.parametrize("junk", ["", "x", "a.b.c", "ä" * 500, "\0", "%00", "." * 300])
def test_junk_for_a_token_is_refused(service, junk):
    """AU3: with a page, not with an error of ours."""
    for path in ("/verify", "/reset"):
        visitor = service.visitor()
        visitor.client.get(path, query_string={"token": junk})
        assert visitor.client.get(path).status_code == 400


def test_links_outlive_a_new_key():
    """A key put in front signs; the one behind it still opens."""
    from mailer.store.accounts import Redeemable

    person = Redeemable("a" * 32, ADA, False, "", "n1", "n2")
    old, rotated = AccountTokens([b"k" * 32]), AccountTokens([b"n" * 32, b"k" * 32])
    token = old.make(Purpose.RESET, person)
    assert rotated.holds(Purpose.RESET, token, person)
    assert not old.holds(Purpose.RESET, rotated.make(Purpose.RESET, person), person)


# AU7, AU8: after the reset, and before the click


def test_a_reset_ends_every_session_and_is_told(service):
    """AU7: other browsers are out, a notice is mailed, nobody is logged in, no mail holds a password."""
    ada, elsewhere = service.member(ADA), service.visitor()
    elsewhere.log_in(ADA)
    assert elsewhere.is_in
    ada.forget(ADA)
    fresh = service.visitor().open(service.link())
    assert fresh.reset(NEW).location == "/login"
    assert not fresh.is_in
    assert not ada.is_in
    assert not elsewhere.is_in
    assert service.mails()[-1]["subject"] == "Your password for Acme was changed"
    assert service.mails()[-1]["to"] == ADA
    assert not any(word in mail.as_string() for mail in service.mails() for word in (NEW, PASSWORD))
    assert service.visitor().log_in(ADA).status_code == 400


@pytest.mark.parametrize("path", ["/verify", "/reset"])
def test_looking_at_a_link_changes_nothing(service, path):
    """AU8: a scanner that opens the link, with and without cookies, uses nothing up."""
    ada = service.visitor() if path == "/verify" else service.member(ADA)
    ada.sign_up(ADA) if path == "/verify" else ada.forget(ADA)
    link = service.link()
    before = service.rows("SELECT * FROM mailer_users")
    for method in ("GET", "HEAD", "GET"):
        scanner = service.visitor()
        opened = scanner.client.open(link.removeprefix(HOST), method=method)
        assert opened.status_code == 303
        assert opened.location == path  # the token has left the address
        assert opened.headers["Referrer-Policy"] == "no-referrer"
        page = scanner.client.get(path)
        assert page.status_code == 200
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert "script" not in page.text
        assert not re.findall(r'(?:src|href)="https?:', page.text)
        assert scanner.client.post(path, data={"password": NEW}).status_code == 400  # no CSRF token
    assert service.rows("SELECT * FROM mailer_users") == before


def test_every_form_wants_its_token(service):
    """AU8, UI5: a post without the token of the session changes nothing."""
    ada = service.member(ADA)
    rows = service.rows("SELECT * FROM mailer_users")
    for path in ("/signup", "/login", "/forgot", "/verify/again", "/account/password", "/logout"):
        fields = {"email": "eve@acme.test", "password": NEW, "current": PASSWORD}
        answer = ada.client.post(path, data=fields)
        assert answer.status_code == 400 or path == "/logout"
    assert ada.is_in
    assert service.rows("SELECT * FROM mailer_users") == rows


def test_pages_and_cookies_are_guarded(tmp_path):
    """AU8: a strict policy on every page; over https every cookie is Secure, HttpOnly and for this host."""
    service = Service(tmp_path, MAILER_BASE_URL="https://localhost")
    visitor = service.visitor()
    for path in ("/", "/signup", "/login", "/forgot", "/verify", "/nowhere"):
        page = visitor.client.get(path, base_url="https://localhost")
        if path != "/nowhere":
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        for cookie in page.headers.getlist("Set-Cookie"):
            assert cookie.startswith(("__Host-mailer_session=", "remember_token=;"))
            flags = set(cookie.split("; "))
            assert "remember_token" in cookie or {"Secure", "HttpOnly", "SameSite=Lax"} <= flags


# AU9, AU10: where links lead, and where mail goes


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.test"},
        {"Host": "localhost:@evil.test"},
        {"Host": "localhost.evil.test"},
        {"X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "https"},
        {"Forwarded": "host=evil.test;proto=https"},
        {"X-Original-Host": "evil.test", "X-Host": "evil.test", "X-Forwarded-Server": "evil.test"},
        {"Referer": "http://evil.test/", "Origin": "http://evil.test"},
    ],
)
def test_links_come_from_the_configuration(service, headers):
    """AU9: nothing of a request is in a mail; an unknown Host gets 400."""
    ada = service.member(ADA)
    token = ada.form_token("/forgot")
    mails = len(service.mails())
    answer = ada.client.post("/forgot", data={"csrf_token": token, "email": ADA}, headers=headers)
    if "Host" in headers:
        assert answer.status_code == 400
        assert len(service.mails()) == mails
    else:
        assert service.link().startswith(f"{HOST}/reset?token=")
    assert not any("evil" in mail.as_string() for mail in service.mails())


@pytest.mark.parametrize(
    ("stored", "typed", "known"),
    [
        ("mike@acme.test", "mıke@acme.test", False),
        ("mike@acme.test", "mi\u212ae@acme.test", False),  # the Kelvin sign
        ("mike@acme.test", "MIKE@ACME.test", True),
        ("mike@acme.test", "mike\uff20acme.test", False),
        ("moss@acme.test", "moß@acme.test", False),
        ("a@straße.test", "a@strasse.test", False),
        ("ﬁ@acme.test", "fi@acme.test", False),
    ],
)
def test_mail_goes_to_the_stored_address(service, stored, typed, known):
    """AU10: what was typed finds an account or does not; it never receives the mail."""
    service.member(stored)
    before = len(service.mails())
    service.visitor().forget(typed)
    service.mails()
    new = [parcel.recipients for parcel in service.services.transport.parcels[before:]]
    [(email,)] = service.rows("SELECT email FROM mailer_users")
    assert new == ([(email,)] if known else [])


def test_confusable_accounts_are_two(service):
    """AU10: each gets its own link only."""
    service.member("mike@acme.test")
    service.member("mıke@acme.test")
    service.visitor().forget("mıke@acme.test")
    service.visitor().open(service.link()).reset(NEW)
    assert service.visitor().log_in("mike@acme.test").location == "/account"
    assert service.visitor().log_in("mike@acme.test", NEW).status_code == 400


# AU11: how often


@pytest.fixture
def limited(tmp_path):
    return Service(tmp_path, RATELIMIT_ENABLED=True)


def test_passwords_cannot_be_tried_for_ever(limited):
    """AU11: known and unknown accounts are counted alike, and the answer is the same."""
    limited.member(ADA)
    told = {}
    for address in (ADA, "no@acme.test"):
        stranger = limited.visitor()
        codes = [stranger.log_in(address, "wrong").status_code for _ in range(11)]
        assert codes == [400] * 10 + [429]
        told[address] = answers(limited, "/login", email=address, password="wrong")
    assert told[ADA] == told["no@acme.test"]


def test_a_stranger_cannot_lock_the_owner_out(limited):
    """AU11: a browser that was in before counts by itself, and a reset opens any other."""
    ada = limited.member(ADA)
    stranger = limited.visitor()
    while stranger.log_in(ADA, "wrong").status_code != 429:
        pass
    ada.client.delete_cookie("mailer_session")
    assert not ada.is_in
    assert ada.log_in(ADA).location == "/account"
    elsewhere = limited.visitor()
    assert elsewhere.log_in(ADA).status_code == 429
    elsewhere.forget(ADA)
    elsewhere.open(limited.link()).reset(NEW)
    assert elsewhere.log_in(ADA, NEW).location == "/account"


def test_one_mailbox_gets_few_resets_however_it_is_spelled(limited):
    """AU11: tags and dots are accounts of their own and share the cap; past it the last link still works."""
    for address in (ADA, "ada+x@acme.test", "a.d.a@acme.test"):
        limited.member(address)
    before = len(limited.mails())
    visitor = limited.visitor()
    for address in (ADA, "ADA@acme.test", "a.d.a@acme.test", "ada+x@acme.test", ADA, "no@acme.test"):
        assert visitor.forget(address).location == "/forgot/sent"
    assert len(limited.mails()) - before == 3
    assert limited.visitor().open(limited.link()).reset(NEW).location == "/login"


def test_one_place_cannot_ask_for_ever(tmp_path):
    """AU11: 429 for one IP address, whichever accounts it asks about; another place is served."""
    service = Service(tmp_path, RATELIMIT_ENABLED=True, ACCOUNTS_LIMITS={"ask.ip": "5/minute"})
    eve = service.visitor()
    assert [eve.forget(f"{n}@acme.test").status_code for n in range(6)] == [303] * 5 + [429]
    assert eve.sign_up("eve@acme.test").status_code == 429
    other = service.visitor()
    other.client.environ_base["REMOTE_ADDR"] = "2001:db8::1"
    assert other.forget(ADA).status_code == 303


def test_all_places_together_cannot_ask_for_ever(tmp_path):
    """AU11: there is a limit in all."""
    service = Service(tmp_path, RATELIMIT_ENABLED=True, ACCOUNTS_LIMITS={"ask.all": "5/minute"})
    codes = []
    for place in range(6):
        visitor = service.visitor()
        visitor.client.environ_base["REMOTE_ADDR"] = f"192.0.2.{place}"
        codes.append(visitor.forget(ADA).status_code)
    assert codes == [303] * 5 + [429]


# AU13, AU14: passwords, and whose account it is


@pytest.mark.parametrize(
    ("password", "good"),
    [
        ("short", False),
        ("password1", False),
        ("QWERTYUIOP", False),
        ("x" * 129, False),
        ("x" * 128, True),
        ("geheime Wörter 🗝", True),
        ("zwölfmal ä b", True),
    ],
)
def test_passwords_are_long_and_not_common(service, password, good):
    """AU13: eight or more, long ones allowed, no rules of composition, the common ones refused; argon2id."""
    answer = service.visitor().sign_up(ADA, password)
    assert (answer.status_code == 303) is good
    hashes = [row[0] for row in service.rows("SELECT password FROM mailer_users")]
    assert all(value.startswith("$argon2id$") for value in hashes)
    assert bool(hashes) is good


def test_a_squatter_does_not_keep_the_account(service):
    """AU14: the owner of the mailbox, in another browser, chooses the password; the squatter is out."""
    squatter = service.visitor()
    squatter.sign_up(ADA, "the squatter's own")
    owner = service.visitor().open(service.link())
    assert "Choose the password" in owner.client.get("/verify").text
    assert owner.confirm().status_code == 400  # a button is not enough here
    assert owner.confirm(password=NEW).location == "/account"
    assert squatter.log_in(ADA, "the squatter's own").status_code == 400
    assert service.visitor().log_in(ADA, NEW).location == "/account"


@pytest.mark.parametrize("last", ["owner", "squatter"])
def test_who_signed_up_last_sets_the_password_only_with_the_mailbox(service, last):
    """AU14: both signed up. The browser that did so last keeps its password, if it also has the link."""
    owner, squatter = service.visitor(), service.visitor()
    first, second = (squatter, owner) if last == "owner" else (owner, squatter)
    for person in (first, second):
        person.sign_up(ADA, "of the owner" if person is owner else "the squatter's own")
    owner.open(service.link())
    answer = owner.confirm() if last == "owner" else owner.confirm(password="of the owner")
    assert answer.location == "/account"
    assert squatter.log_in(ADA, "the squatter's own").status_code == 400
    assert service.visitor().log_in(ADA, "of the owner").location == "/account"


def test_signing_up_again_leaves_a_verified_account_alone(service):
    """AU14, AU1: its owner gets a mail that says so, and its password stays."""
    service.member(ADA)
    service.visitor().sign_up(ADA, NEW)
    assert service.mails()[-1]["subject"] == "You already have an account at Acme"
    assert service.visitor().log_in(ADA, NEW).status_code == 400
    assert service.visitor().log_in(ADA).location == "/account"


def test_a_reset_proves_the_mailbox_too(service):
    """AU14: the owner of an unverified address gets in by a reset, with a password of their own."""
    service.visitor().sign_up(ADA, "the squatter's own")
    owner = service.visitor()
    owner.forget(ADA)
    owner.open(service.link()).reset(NEW)
    assert owner.log_in(ADA, NEW).location == "/account"
    assert service.visitor().log_in(ADA, "the squatter's own").status_code == 400


# RT2: nothing waits for a broker


@pytest.fixture
def silent_port():
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


def test_sign_up_does_not_wait_for_a_silent_broker(tmp_path, silent_port):
    """RT2: the broker, which also keeps the counts, takes connections and never answers."""
    url = f"redis://127.0.0.1:{silent_port}/0"
    service = Service(tmp_path, RATELIMIT_ENABLED=True, MAILER_BROKER_URL=url)
    ada = service.visitor()
    token = ada.form_token("/signup")
    started = time.monotonic()
    answer = ada.client.post("/signup", data={"csrf_token": token, "email": ADA, "password": PASSWORD})
    assert time.monotonic() - started < 1
    assert answer.status_code == 303
    assert len(service.mails()) == 1
