"""The scikit-learn face: an ensemble and its student as estimators over texts."""

from credibly.errors import MissingExtraError

try:
    from credibly.estimators.classifiers import EnsembleClassifier, StudentClassifier, TextClassifier
except ImportError as error:
    if str(error.name).partition(".")[0] != "sklearn":
        raise
    raise MissingExtraError(
        'the estimators need scikit-learn, which is not installed: pip install "credibly[sklearn]"'
    ) from None

__all__ = ["EnsembleClassifier", "StudentClassifier", "TextClassifier"]
