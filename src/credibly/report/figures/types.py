"""What figures are kept in: on their way into report.json, and where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
"""A part of report.json in the making."""

Report = Mapping[str, Any]
"""report.json or comparison.json, or a part of it, as it is read."""

Figure = Mapping[str, Any]
"""A figure as report.json holds it: value, low, high, and spread where there is one."""
