"""The service: answers over HTTP, several requests at once, with a page for people."""

from __future__ import annotations

from credibly.serve.app import create_app
from credibly.serve.server import bound, run
from credibly.serve.settings import Answering, ServiceSettings

__all__ = ["Answering", "ServiceSettings", "bound", "create_app", "run"]
