"""The service answers to its own names only, and takes no form of any size."""

from __future__ import annotations

import pytest

from mailer.app import create_app


@pytest.fixture
def client(tmp_path):
    config = {"MAILER_DATA_DIR": str(tmp_path), "MAILER_BASE_URL": "https://app.acme.example"}
    return create_app(config | {"MAILER_TRUSTED_HOSTS": "internal.acme.example"}).test_client()


@pytest.mark.parametrize(
    ("host", "status"),
    [("app.acme.example", 200), ("internal.acme.example", 200), ("evil.example", 400), ("127.0.0.1", 400)],
)
def test_other_hosts_get_400(client, host, status):
    """AU9: the base URL's host and those in MAILER_TRUSTED_HOSTS, and no other."""
    assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_a_request_has_a_largest_size(client):
    """A form of more than a megabyte is refused before it is read."""
    big = {"email": "a" * 1_100_000}
    assert client.post("/signup", data=big, headers={"Host": "app.acme.example"}).status_code == 413
