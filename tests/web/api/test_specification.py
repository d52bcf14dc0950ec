"""The specification says what the API does: a property-based tester reads it and asks. And odd bodies."""

from __future__ import annotations

import json
import re

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks as described

from mailer.web.api.models import EmailIn
from mailer.web.api.routes import ROUTES
from tests.web.api.service import HELLO, ApiService

CHECKS = [
    checks.not_a_server_error,
    described.status_code_conformance,
    described.content_type_conformance,
    described.response_schema_conformance,
    described.response_headers_conformance,
    described.negative_data_rejection,
    described.ignored_auth,
]
EXAMPLES = 25
"""Of each operation; there are some twenty. More find nothing else in the time there is."""


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> ApiService:
    return ApiService(tmp_path_factory.mktemp("spec"), api_rate="1000000/second")


@pytest.fixture(scope="module")
def caller(service):
    return service.caller()


@pytest.fixture(scope="module")
def specification(service):
    service.app.extensions["mailer.api.gate"].failures.test = lambda *_: True
    config = SchemathesisConfig.discover()
    return schemathesis.openapi.from_wsgi("/api/openapi.json", service.app, config=config)


def test_it_lists_every_endpoint(service):
    """Each route, with its scope and every error it may answer, and no other."""
    document = service.app.test_client().get("/api/openapi.json").json
    assert document["openapi"] == "3.1.0"
    listed = {(m.upper(), path) for path, operations in document["paths"].items() for m in operations}
    assert listed == {
        (route.method, re.sub(r"<(?:path:|int:)?(\w+?)_?>", r"{\1}", route.path)) for route in ROUTES
    }
    send = document["paths"]["/emails"]["post"]
    assert "Needs the scope send." in send["description"]
    assert {"200", "401", "403", "409", "413", "422", "429", "500"} <= set(send["responses"])
    names = {field.alias or name for name, field in EmailIn.model_fields.items()}
    assert set(document["components"]["schemas"]["EmailIn"]["properties"]) == names


def test_anybody_may_ask_whether_it_works(service):
    """Without a key, under the prefix too."""
    answer = service.app.test_client().get("/api/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_it_does_what_it_says(specification, caller, route):
    """Right requests and wrong ones, made from the specification: every answer as described, and no 500."""
    operation = specification[re.sub(r"<(?:path:|int:)?(\w+?)_?>", r"{\1}", route.path)][route.method]

    # A permissive batch is 200 whatever is in it: the answer says what was wrong.
    permissive = {described.negative_data_rejection} if route.name == "emails_send_batch" else set()
    asked = [check for check in CHECKS if check not in permissive]

    @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=NEGATIVE))
    @settings(max_examples=EXAMPLES, derandomize=True, suppress_health_check=list(HealthCheck))
    def ask(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {caller.token}"}, checks=asked)

    ask()


NEGATIVE = schemathesis.GenerationMode.NEGATIVE


# Odd bodies


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [field.alias or name for name, field in EmailIn.model_fields.items()]
MAILS = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6).map(lambda odd: HELLO | odd)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "to": st.text() | st.lists(st.text(), max_size=3),
        "from": st.text(),
        "subject": st.text(),
        "html": st.text(),
        "headers": st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3),
        "attachments": st.lists(
            st.fixed_dictionaries(
                {"filename": st.text()},
                optional={"content": st.text() | st.lists(st.integers(0, 255)), "path": st.text(),
                          "content_type": st.text(), "content_id": st.text()},
            ),
            max_size=2,
        ),
        "tags": st.lists(st.fixed_dictionaries({"name": st.text(), "value": st.text()}), max_size=3),
        "scheduled_at": st.text(),
        "expires_at": st.text(),
        "locale": st.text(),
        "template": st.fixed_dictionaries(
            {"id": st.text()}, optional={"variables": st.dictionaries(st.text(), JSON)}
        ),
    },
).map(lambda odd: HELLO | odd)  # fmt: skip


@given(body=JSON | MAILS | SHAPED)
@settings(max_examples=150, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_body_is_a_server_error(service, caller, body):
    """AK5, IN1: whatever is sent is a message or the caller's mistake; and the answer is JSON."""
    for path, data in (("/emails", body), ("/emails/batch", [body])):
        answer = caller.post(path, headers={"x-batch-validation": "permissive"}, data=json.dumps(data))
        assert answer.status_code < 500, (body, answer.text)
        assert answer.mimetype == "application/json"


@given(data=st.binary(max_size=200))
@settings(max_examples=50, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_octets_are_a_server_error(service, caller, data):
    """AK5: what is no JSON, or no UTF-8."""
    for method, path in (("POST", "/emails"), ("PATCH", "/emails/x"), ("POST", "/templates/welcome/preview")):
        assert caller.ask(method, path, data=data).status_code < 500


def test_the_page_needs_nothing_from_elsewhere(service):
    """It reads without a script, and its policy lets none run."""
    answer = service.app.test_client().get("/api/docs")
    assert answer.status_code == 200
    assert "script" not in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//|<script", answer.text)
    for route in ROUTES:
        assert f'id="{route.name}"' in answer.text
