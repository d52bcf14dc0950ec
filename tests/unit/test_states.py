"""The table of transitions."""

from __future__ import annotations

from mailer.states import CLAIMABLE, FINAL, TRANSITIONS, State, summarise


def test_every_state_can_be_reached():
    """No state is unreachable: each one is the end of some transition."""
    assert set().union(*(to for _, to in TRANSITIONS.values())) == set(State)


def test_only_a_person_moves_what_has_ended():
    """Promise 2: a final state stays, but for a person's retry of a failed delivery."""
    leaving = {name for name, (of, _) in TRANSITIONS.items() if of & FINAL}
    assert leaving == {"retry"}
    assert TRANSITIONS["retry"][0] & FINAL == {State.FAILED}
    assert not CLAIMABLE & FINAL


def test_a_message_is_sent_only_if_all_of_it_is():
    """SC2: one refusal among many shows in the message's word."""
    assert summarise([State.SENT, State.SENT]) is State.SENT
    assert summarise([State.SENT, State.FAILED]) is State.FAILED
    assert summarise([State.FAILED, State.DEFERRED]) is State.DEFERRED
    assert all(summarise([state]) is state for state in State)
