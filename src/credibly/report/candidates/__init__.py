"""The comparison of candidates, a report of its own: comparison.json, its advice, page and printed table."""
