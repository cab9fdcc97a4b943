"""Uncertainty, scores, calibration and their intervals: NumPy and SciPy on saved predictions."""
