"""What OpenAPI says of the service holds for requests made up from it, right and wrong ones."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from service import Standin, served

pytestmark = pytest.mark.slow

OPERATIONS = {"/predict": "POST", "/about": "GET", "/health": "GET", "/ready": "GET", "/metrics": "GET"}


@pytest.fixture(scope="module")
def schema():
    with served(Standin().answering(), max_characters=300, max_texts=20) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def hold(operation, mode, examples):
    """Make requests up, and compare their answers with what is described."""
    seen = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    def every_answer_is_as_described(case):
        seen.add(case.call_and_validate().status_code)

    every_answer_is_as_described()
    return seen


def test_what_is_described_is_what_there_is(schema):
    assert {path: list(methods) for path, methods in schema.raw_schema["paths"].items()} == {
        path: [method.lower()] for path, method in OPERATIONS.items()
    }


@pytest.mark.parametrize("path", OPERATIONS)
def test_right_requests_are_answered_as_described(schema, path):
    examples = 30 if path == "/predict" else 2
    assert hold(schema[path][OPERATIONS[path]], GenerationMode.POSITIVE, examples) == {200}


def test_wrong_requests_are_refused_as_described(schema):
    assert hold(schema["/predict"]["POST"], GenerationMode.NEGATIVE, 30) <= {400, 415, 422}
