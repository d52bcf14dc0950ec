"""The API in the test's process."""

from __future__ import annotations

import pytest

from tests.web.api.service import ApiService, Caller


@pytest.fixture
def service(tmp_path) -> ApiService:
    return ApiService(tmp_path)


@pytest.fixture
def caller(service) -> Caller:
    """Somebody whose key may do everything."""
    return service.caller()
