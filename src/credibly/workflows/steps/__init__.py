"""The steps of a fit, each of which leaves its file whole."""
