"""What an answer means, code by code and stage by stage, and when to try again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.replies import PROTOCOL_ERROR, Blame, Fate
from mailer.retry import RetryPolicy, Verdict, judge
from mailer.transports import Reply, Result, Stage

POLICY = RetryPolicy()
BEFORE_MAIL = [Stage.CONNECT, Stage.GREETING, Stage.TLS, Stage.AUTH]
BEFORE_TEXT = [stage for stage in Stage if stage is not Stage.TEXT]


def verdict(
    stage: Stage,
    reply: str | None,
    *,
    attempt: int = 1,
    on_uncertain: str = "retry",
    earlier_uncertain: int = 0,
    problem: str = "",
) -> Verdict:
    """Judge a reply written as the server would, such as ``550 5.1.1 no``."""
    code, _, text = (reply or "").partition(" ")
    return judge(
        Result(stage, Reply(int(code), text) if code else None, stage is Stage.TEXT, problem),
        attempt=attempt,
        policy=POLICY,
        on_uncertain=on_uncertain,
        earlier_uncertain=earlier_uncertain,
        random=lambda: 0.0,
    )


def test_250_after_the_text_is_sent() -> None:
    """SC3: nothing else is."""
    assert verdict(Stage.TEXT, "250 ok") == Verdict(Fate.SENT, None, "accepted", None)
    assert verdict(Stage.RCPT, "250 ok").fate is not Fate.SENT
    assert verdict(Stage.DATA, "250 ok").fate is not Fate.SENT


@pytest.mark.parametrize(
    ("reply", "fate"),
    [
        ("450 4.2.1 later", Fate.DEFERRED),
        ("550 5.1.1 no", Fate.FAILED),
        ("450 5.1.1 no", Fate.DEFERRED),
        ("550 4.2.1 later", Fate.FAILED),
        ("499 anything", Fate.DEFERRED),
        ("599 anything", Fate.FAILED),
        ("451 permanent failure, do not try again", Fate.DEFERRED),
        ("550 temporary failure, try again later", Fate.FAILED),
    ],
)
@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.TEXT])
def test_the_basic_code_decides(stage: Stage, reply: str, fate: Fate) -> None:
    """SC1, RT9: by its first digit; on a clash it wins over the enhanced code, and text decides nothing."""
    assert verdict(stage, reply).fate is fate


def test_each_recipient_is_judged_alone() -> None:
    """SC2: accepted, 550 and 450 are sent, failed and deferred."""
    fates = [
        verdict(Stage.TEXT, "250 ok").fate,
        verdict(Stage.RCPT, "550 5.1.1 no").fate,
        verdict(Stage.RCPT, "450 4.2.0 later").fate,
    ]
    assert fates == [Fate.SENT, Fate.FAILED, Fate.DEFERRED]


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
def test_a_loss_before_the_text_is_transient(stage: Stage) -> None:
    """SC4: as if 421 had been read. RFC 5321 3.8"""
    assert verdict(stage, None).fate is Fate.DEFERRED
    assert verdict(stage, "421 4.3.2 going down").fate is Fate.DEFERRED
    assert verdict(stage, None).reason == "connection_lost"


def test_a_loss_after_the_text_follows_the_message() -> None:
    """SC4: ``retry`` waits a minute and tries again, ``hold`` asks a person; never a plain failure."""
    again = verdict(Stage.TEXT, None)
    assert (again.fate, again.delay_seconds, again.reason) == (Fate.DEFERRED, 60, "outcome_unknown")
    held = verdict(Stage.TEXT, None, on_uncertain="hold")
    assert (held.fate, held.delay_seconds, held.reason) == (Fate.UNCERTAIN, None, "outcome_unknown")


@pytest.mark.parametrize("reply", ["354 go on", "220 hello"])
def test_only_an_answer_to_the_text_is_an_answer(reply: str) -> None:
    """SC20: after the text 3xx says nothing; 2xx of any kind is an acceptance. RFC 5321 4.2.1"""
    expected = Fate.SENT if reply.startswith("2") else Fate.DEFERRED
    assert verdict(Stage.TEXT, reply).fate is expected
    if expected is Fate.DEFERRED:
        assert verdict(Stage.TEXT, reply).reason == "outcome_unknown"


def test_an_unknown_outcome_is_not_repeated_for_ever() -> None:
    """SC4: each repetition may be a copy; after three, or when the tries are used up, a person decides."""
    assert verdict(Stage.TEXT, None, earlier_uncertain=1).fate is Fate.DEFERRED
    assert verdict(Stage.TEXT, None, earlier_uncertain=2).fate is Fate.UNCERTAIN
    assert verdict(Stage.TEXT, None, attempt=26).fate is Fate.UNCERTAIN


@pytest.mark.parametrize(
    ("stage", "reply", "fate", "reason"),
    [
        (Stage.RCPT, "552 too many", Fate.DEFERRED, "too_many_recipients"),
        (Stage.RCPT, "452 4.5.3 too many", Fate.DEFERRED, "too_many_recipients"),
        (Stage.RCPT, "552 5.2.2 full", Fate.DEFERRED, "mailbox_full"),
        (Stage.MAIL, "552 too large", Fate.FAILED, "message_too_large"),
        (Stage.MAIL, "554 5.3.4 too large", Fate.FAILED, "message_too_large"),
        (Stage.TEXT, "552 too large", Fate.FAILED, "message_too_large"),
        (Stage.TEXT, "554 5.3.4 too large", Fate.FAILED, "message_too_large"),
        (Stage.TEXT, "552 5.2.2 full", Fate.FAILED, "mailbox_full"),
    ],
)
def test_552_depends_on_the_stage(stage: Stage, reply: str, fate: Fate, reason: str) -> None:
    """SC6: to RCPT it is transient, elsewhere final for this message. RFC 5321 4.5.3.1.10, RFC 1870"""
    assert (verdict(stage, reply).fate, verdict(stage, reply).reason) == (fate, reason)


@pytest.mark.parametrize("stage", BEFORE_MAIL)
@pytest.mark.parametrize(
    "reply", [None, "421 busy", "454 later", "530 no", "535 no", "550 no", "554 go away"]
)
def test_before_mail_everything_is_the_transports_fault(stage: Stage, reply: str | None) -> None:
    """SC7: no message fails and none pays a try for a server that cannot be used at all."""
    result = verdict(stage, reply, attempt=10_000)
    assert (result.fate, result.blame) == (Fate.TRANSPORT_FAULT, Blame.TRANSPORT)
    assert result.delay_seconds


@pytest.mark.parametrize("code", [530, 534, 535, 538])
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.TEXT])
def test_missing_authentication_burns_no_message(stage: Stage, code: int) -> None:
    """SC7: at whatever stage the server finds that the credentials are wrong. RFC 4954 6"""
    assert verdict(stage, f"{code} 5.7.0 sign in").fate is Fate.TRANSPORT_FAULT


@pytest.mark.parametrize("reply", ["550 5.7.1 not your domain", "553 5.1.8 no such sender", "501 syntax"])
def test_a_refused_sender_is_a_matter_of_configuration(reply: str) -> None:
    """SC7: 5xx to MAIL FROM is about us: nothing fails, no recipient is blamed."""
    result = verdict(Stage.MAIL, reply)
    assert (result.fate, result.reason, result.blame) == (
        Fate.TRANSPORT_FAULT,
        "sender_refused",
        Blame.SENDER,
    )


@pytest.mark.parametrize("code", [521, 556])
def test_a_domain_that_takes_no_mail_is_final(code: int) -> None:
    """SC8: RFC 7504, RFC 7505."""
    result = verdict(Stage.RCPT, f"{code} 5.1.10 none here")
    assert (result.fate, result.reason, result.blame) == (
        Fate.FAILED,
        "domain_takes_no_mail",
        Blame.RECIPIENT,
    )


@pytest.mark.parametrize("stage", BEFORE_TEXT)
def test_what_is_not_smtp_is_a_fault_of_the_transport(stage: Stage) -> None:
    """SC20: transient, and nobody's but the transport's."""
    garbled = verdict(stage, None, problem=f"{PROTOCOL_ERROR}: no reply")
    assert (garbled.fate, garbled.blame) == (Fate.TRANSPORT_FAULT, Blame.TRANSPORT)
    assert verdict(stage, "354 what").fate is Fate.TRANSPORT_FAULT


def test_garbage_after_the_text_leaves_the_outcome_unknown() -> None:
    """SC20, SC4: the server may have taken the message all the same."""
    assert verdict(Stage.TEXT, None, problem=f"{PROTOCOL_ERROR}: x").reason == "outcome_unknown"


@pytest.mark.parametrize(
    ("reply", "reason", "blame"),
    [
        ("550 5.1.1 no", "mailbox_unknown", Blame.RECIPIENT),
        ("550 5.1.2 no", "domain_unknown", Blame.RECIPIENT),
        ("550 5.2.1 no", "mailbox_disabled", Blame.RECIPIENT),
        ("550 no", "mailbox_refused", Blame.RECIPIENT),
        ("553 5.6.7 no", "smtputf8_missing", Blame.TRANSPORT),
        ("550 5.7.1 no", "refused_by_policy", Blame.SENDER),
        ("550 5.7.26 unauthenticated", "not_authenticated", Blame.SENDER),
        ("421 4.7.28 slow down", "rate_limited", Blame.SENDER),
        ("450 4.2.2 full", "mailbox_full", Blame.RECIPIENT),
        ("451 later", "server_busy", Blame.TRANSPORT),
    ],
)
def test_the_enhanced_code_names_reason_and_blame(reply: str, reason: str, blame: Blame) -> None:
    """SC1, SR2: what a mailbox provider holds against the sender never counts against the recipient."""
    result = verdict(Stage.RCPT, reply)
    assert (result.reason, result.blame) == (reason, blame)


def test_the_tries_end() -> None:
    """RT7: the 26th try was the last; the reason says so."""
    assert verdict(Stage.RCPT, "450 later", attempt=25).fate is Fate.DEFERRED
    last = verdict(Stage.RCPT, "450 later", attempt=26)
    assert (last.fate, last.reason, last.delay_seconds) == (Fate.FAILED, "tries_used_up", None)


def test_the_waits_grow_to_four_hours_and_end_after_three_days() -> None:
    """RT7: 1, 2, 4 … minutes, then 4 hours each time, 72 hours together."""
    waits = [RetryPolicy(jitter=False).delay(attempt) for attempt in range(1, 26)]
    assert waits[:9] == [60, 120, 240, 480, 960, 1920, 3840, 7680, 14_400]
    assert set(waits[8:]) == {14_400}
    assert sum(waits) / 3600 == pytest.approx(72.25)


@given(st.integers(), st.floats(0, 1, exclude_max=True))
def test_no_count_is_too_absurd(attempt: int, chance: float) -> None:
    """RT7: any count waits between half a minute and four hours."""
    assert 30 <= POLICY.delay(attempt, lambda: chance) <= 14_400


def test_jitter_takes_off_up_to_a_half() -> None:
    """RT7: so that what was deferred together does not come back together."""
    assert POLICY.delay(3, lambda: 0.0) == 240
    assert POLICY.delay(3, lambda: 0.5) == 180
    assert POLICY.delay(3, lambda: 0.999) == pytest.approx(120, abs=1)


@given(
    st.sampled_from(Stage),
    st.none() | st.integers(100, 999),
    st.booleans(),
    st.sampled_from(["", "5.1.1 x", "4.7.28 y", "9.9.9", "5.3.4"]),
    st.integers(1, 40),
    st.sampled_from(["retry", "hold"]),
)
def test_every_result_has_one_fate(
    stage: Stage, code: int | None, sent: bool, text: str, attempt: int, policy: str
) -> None:
    """Whatever a server does ends in one word: something follows exactly if there is a delay."""
    reply = None if code is None else Reply(code, text)
    result = judge(Result(stage, reply, sent), attempt=attempt, policy=POLICY, on_uncertain=policy)
    waits = result.fate in (Fate.DEFERRED, Fate.TRANSPORT_FAULT)
    assert (result.delay_seconds is not None) == waits
    assert result.reason.replace("_", "").isalpha()
    assert (result.fate is Fate.SENT) == (stage is Stage.TEXT and code is not None and 200 <= code < 300)
