"""Texts get labels: from language models, and from people those that are most worth it."""
