"""The service's page: one document that needs nothing else, and a policy that lets it have nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

SCRIPTS = ("tables.js", "answers.js", "page.js")


def page_with_policy() -> tuple[str, str]:
    """Return the page as HTML, and its Content-Security-Policy.

    Only our own style and script, known by their hashes, are let in, and only this service may be asked:
    a text that became markup by mistake could still do nothing.
    """
    style = _file("style.css")
    script = '"use strict";\n' + "".join(_file(name) for name in SCRIPTS)
    html = _file("page.html").replace("/* style */", style).replace("/* script */", script)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _file(name: str) -> str:
    return files("credibly.serve.page").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
