"""What real servers say, and what is made of it: the tables of `mailer.replies`, line by line."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.replies import MEANINGS, PROTOCOL_ERROR, RULES, Blame, Fate, explain, explained, rule_for
from mailer.replies.providers import PROVIDERS
from mailer.retry import RetryPolicy, judge
from mailer.store.transports import WAITED_FOR
from mailer.transports import Reply, Result, Stage

SENT, RETRY, FAIL, FAULT = Fate.SENT, Fate.DEFERRED, Fate.FAILED, Fate.TRANSPORT_FAULT
RECIPIENT, PROVIDER = Blame.RECIPIENT, Blame.TRANSPORT
FATES = {"sent": SENT, "retry": RETRY, "fail": FAIL, "fault": FAULT}


def real() -> list[tuple[str, str, Fate, str, Blame, bool]]:
    """Stage, answer, what is done, reason, whose matter, and whether it makes a suppression candidate."""
    found = []
    for line in (Path(__file__).parent / "real_replies.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            stage, fate, reason, blame, answer = line.split(" | ", 4)
            candidate = reason.startswith("+")
            found.append((stage, answer, FATES[fate], reason.removeprefix("+"), Blame(blame), candidate))
    return found


LINES = real()


def heard(stage: Stage, line: str) -> Result:
    """The result of an answer written as a server would."""
    code, _, text = line.partition(" ")
    return Result(stage, Reply(int(code), text), stage is Stage.TEXT)


def judged(result: Result, attempt: int = 1) -> tuple[Fate, str, Blame | None]:
    found = judge(result, attempt=attempt, policy=RetryPolicy(), on_uncertain="retry")
    return found.fate, found.reason, found.blame


@pytest.mark.parametrize(("stage", "line", "fate", "reason", "blame", "candidate"), LINES)
def test_what_is_made_of_a_real_answer(stage, line, fate, reason, blame, candidate):
    """SC1, SC6, SC7, SC8: what is done, why, whose matter it is, and who might be suppressed."""
    result = heard(Stage(stage), line)
    found = explain(result)
    assert (found.rule.fate, found.reason, found.blame, found.suppress) == (fate, reason, blame, candidate)
    assert judged(result) == (fate, reason, None if fate is SENT else blame)


def test_every_row_about_a_provider_has_a_real_answer():
    """No row is there without a line that it is the first to fit."""
    used = [explain(heard(Stage(stage), line)).meaning for stage, line, *_ in LINES]
    assert [row for row in PROVIDERS if row not in used] == []


CODES = [*map(str, (200, 250, 300, 354, 400, 421, 422, 432, 450, 451, 452, 454, 499, 500, 501, 503, 521)),
         *map(str, (530, 534, 535, 538, 550, 551, 552, 553, 554, 556, 571, 599))]  # fmt: skip
DETAILS = [f"{subject}.{n}" for subject in range(8) for n in (0, 1, 2, 3, 4, 6, 7, 8, 10, 25, 28, 606)]
ENHANCED = ["", "2.1.1", *(f"{kind}.{rest}" for kind in "45" for rest in DETAILS)]


def test_something_is_made_of_whatever_comes():
    """SC20: every stage with every code has a rule and a meaning, also where nothing came or no SMTP."""
    for stage, code in itertools.product(Stage, CODES):
        found = explain(heard(stage, code))
        assert found.reason
        assert found.means != "accepted" or found.rule.fate is SENT, (stage, code)
    for stage, problem in itertools.product(Stage, ["no answer", f"{PROTOCOL_ERROR}: x"]):
        found = explain(Result(stage, None, stage is Stage.TEXT, problem))
        assert found.blame is PROVIDER
        assert found.means != "accepted"


@pytest.mark.parametrize("stage", ["rcpt", "data", "text"])
def test_the_first_digit_decides(stage):
    """SC1: but for 552 to RCPT (SC6) and the log-in (SC7), nothing makes 4xx final or 5xx transient."""
    for code, enhanced in itertools.product((c for c in CODES if c[0] in "45"), ENHANCED):
        fate = rule_for(heard(Stage(stage), f"{code} {enhanced} no")).fate
        if code in ("530", "534", "535", "538"):
            assert fate is FAULT
        elif stage == "rcpt" and code == "552":
            assert fate is RETRY
        else:
            assert fate is (RETRY if code[0] == "4" else FAIL), (code, enhanced)


PHRASES = sorted({phrase for row in MEANINGS for phrase in row.says})


@pytest.mark.parametrize("stage", ["mail", "rcpt", "text"])
def test_no_phrase_decides_anything(stage):
    """SC1: no phrase of the tables changes what is done, or makes anybody a candidate for suppression."""
    codes, enhanced_codes = (
        ("250", "421", "451", "550", "552", "554"),
        ("", "4.7.1", "5.1.1", "5.2.1", "5.7.1"),
    )
    for code, enhanced, phrase in itertools.product(codes, enhanced_codes, PHRASES):
        unchanged(heard(Stage(stage), f"{code} {enhanced}"), f"{phrase.upper()} x")


@given(st.sampled_from(Stage), st.sampled_from(CODES), st.sampled_from(ENHANCED), st.text(max_size=60))
def test_no_text_decides_anything(stage: Stage, code: str, enhanced: str, text: str) -> None:
    """SC1: nor does any other."""
    unchanged(heard(stage, f"{code} {enhanced}"), text)


def unchanged(result: Result, text: str) -> None:
    """What is done about a result is the same with a text behind its codes."""
    assert result.reply is not None
    longer = Reply(result.reply.code, f"{result.reply.enhanced or '-'} {text}")
    plain, wordy = explain(result), explain(replace(result, reply=longer))
    assert wordy.rule == plain.rule
    assert plain.suppress or not wordy.suppress


def test_only_a_recipient_is_ever_a_candidate():
    """SC7: refused for good, to RCPT, because of the recipient; never a full mailbox, never a policy."""
    candidates = set()
    for stage, code, enhanced in itertools.product(Stage, CODES, ENHANCED):
        found = explain(heard(stage, f"{code} {enhanced} x"))
        if found.suppress:
            assert (stage, found.rule.fate, found.blame) == (Stage.RCPT, FAIL, RECIPIENT)
            assert enhanced != "5.2.2"
            assert not enhanced.startswith(("4.", "5.7."))
            candidates.add(found.reason)
    assert candidates == {
        *("mailbox_unknown", "domain_unknown", "address_invalid", "mailbox_moved", "domain_takes_no_mail"),
        "mailbox_disabled",
    }


def test_a_fault_of_the_transport_is_nothing_else():
    """SC7: what makes a transport rest has a reason that wakes what waits for it, and blames no other."""
    for stage, code, phrase in itertools.product(Stage, CODES, ["", *PHRASES]):
        found = explain(heard(stage, f"{code} 5.7.1 {phrase}"))
        if found.rule.rests:
            assert found.reason in WAITED_FOR
            assert (found.rule.fate, found.blame) == (FAULT, PROVIDER)


def test_rules_that_give_a_reason_agree_with_the_meanings():
    """A person reads the reason of one table beside the words of the other."""
    for rule in RULES:
        for stage in rule.stages.split():
            for code in rule.codes.split() or ["550"]:
                if rule.reason in ("", "accepted") or code == "2..":
                    continue
                problem = f"{PROTOCOL_ERROR}: x" if code == "garbled" else "lost"
                reply = None if code in ("lost", "garbled") else Reply(int(code.replace("other", "354")))
                result = Result(Stage(stage), reply, stage == "text", problem)
                fitting = [m for m in MEANINGS if m.means == explain(result).means]
                assert {m.reason for m in fitting} == {rule.reason}, (rule, stage, code)


def test_an_old_event_is_explained():
    """The timeline keeps what was said; what it means is worked out when somebody looks."""
    event = {
        "stage": "rcpt",
        "code": 550,
        "reply": "5.1.1 no such user",
        "reason": "mailbox_unknown",
        "attempt": 1,
    }
    found = explained(event)
    assert found is not None
    assert found.suppress
    assert found.sentence() == "there is no such mailbox; correct the address, or take it out of your data"
    tls = explained({"stage": "tls", "reply": "expired", "reason": "tls_failed"})
    assert tls is not None
    assert tls.sentence("SETTING").endswith("host and ca_file in SETTING")


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"recipient": "a@acme.test", "attempt": 1, "reason": "not_rendered", "problem": "x"},
        {"stage": "text", "code": 250, "reply": "ok", "reason": "accepted"},
        {"stage": "connect", "reply": "waiting for a transport: a rests", "reason": "transport_down"},
        {"stage": "nowhere", "code": 550},
        {"stage": None},
    ],
)
def test_what_is_no_answer_is_not_explained(event):
    """A wait, a template's fault and an acceptance need no words; nor does a row of another version."""
    assert explained(event) is None


@given(st.text(), st.one_of(st.none(), st.integers(-5, 10**6), st.text()), st.one_of(st.none(), st.text()))
def test_no_event_is_too_odd_to_be_looked_at(stage: str, code: object, reply: object) -> None:
    """RT9: what an earlier or later version wrote never breaks a timeline."""
    for known in (stage, "rcpt", "text"):
        explained({"stage": known, "code": code, "reply": reply})
