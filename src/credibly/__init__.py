"""Text classifiers whose probabilities you can believe."""

__version__ = "0.1.0"
