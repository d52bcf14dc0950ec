"""A mail that kills its worker: it ends, and its neighbours arrive."""

from __future__ import annotations

import time

from mailer import send_email
from tests.faults.conftest import view, wait
from tests.faults.poisoned_host import POISON
from tests.peer import SmtpPeer


def test_a_mail_that_kills_its_worker_ends(dispatcher):
    """RT5: after three crashes it has failed; the others, also those of its batch, were sent once (F12)."""
    dispatcher.host = "tests.faults.poisoned_host"
    with SmtpPeer() as peer:
        dispatcher.set("MAILER_SMTP_URL", f"smtp://127.0.0.1:{peer.port}")
        app = dispatcher.app()
        with app.app_context():
            names = [*(f"Ada{n}" for n in range(10)), POISON, *(f"Bob{n}" for n in range(10))]
            ids = {
                name: send_email.delay("welcome", to=f"{name}@x.test", context={"name": name}).id
                for name in names
            }
        give_up, poison = time.monotonic() + 60, ids.pop(POISON)
        worker = dispatcher.start_worker("--concurrency", "2")
        while wait(app, poison, 0.2) != "failed":
            assert time.monotonic() < give_up
            if worker.poll() is not None:  # as a supervisor does
                worker = dispatcher.start_worker("--concurrency", "2")
        assert {wait(app, id_) for id_ in ids.values()} == {"sent"}
    assert sorted(r for copy in peer.accepted for r in copy.recipients) == sorted(f"{n}@x.test" for n in ids)
    found = view(app, poison)
    assert [event.name for event in found.events].count("worker_lost") == 3
    assert found.deliveries[0].reason == "worker_lost"
