"""Reports built once for all the tests here."""

from __future__ import annotations

from typing import Any

import pytest

from report.samples import SIX, binary_run, built, examples, members_only


@pytest.fixture(scope="session")
def run() -> dict[str, Any]:
    return binary_run()


@pytest.fixture(scope="session")
def binary(run: dict[str, Any]) -> dict[str, Any]:
    return built(run)


@pytest.fixture(scope="session")
def six() -> dict[str, Any]:
    shift = examples(60, SIX, seed=9, labelled=False, name="shift")
    return built(members_only(examples(150, SIX, seed=8), shift=shift))


@pytest.fixture(scope="session")
def lone() -> dict[str, Any]:
    return built(members_only(examples(80, seed=6), M=1))
