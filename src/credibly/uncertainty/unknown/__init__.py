"""Texts that are unlike those trained on: scores of them, and whether a file is of another kind."""
