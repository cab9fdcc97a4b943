"""The records that everything else reads and writes: `Examples`, `Predictions`, `Interval`.

Each is frozen and checked on construction, so that code further on can trust its shape. Whole words
are used for everything but three letters: M members, N examples, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from credibly.errors import RecordError, listed
from credibly.parted import PartedText

UNKNOWN = -1
"""The label of an example whose class is not known."""

NORMALISATION_TOLERANCE = 1e-3
LOWEST_LOG_PROB = float(np.log(1e-12))
"""Probabilities below 1e-12 are raised to it, so that every stored log-probability is finite."""

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Texts with what is known of their classes.

    Args:
        ids: N unique names.
        texts: N texts, none empty; `PartedText` where they were made of a template or are pairs.
        class_names: C >= 2 unique names.
        labels: int64, (N,), class indices; -1 where the class is unknown.
        label_probs: float64, (N, C), each row normalised: the share of people who chose each class,
            or any other soft label; None where there are none.
        groups: N group names; rows of one group are never split apart. None where there are none.
        weights: float64, (N,), not negative: how much each row counts in training, in relation to the
            others. None where all count the same.

    Raises:
        RecordError: the parts do not fit together.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: IntArray
    label_probs: FloatArray | None = None
    groups: tuple[str, ...] | None = None
    weights: FloatArray | None = None

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        check_ids(self.ids)
        N, C = len(self.ids), len(self.class_names)
        if len(self.texts) != N:
            raise RecordError(f"expected one text an id: {N} ids came with {len(self.texts)} texts")
        if self.groups is not None and len(self.groups) != N:
            raise RecordError(f"expected one group an id: {N} ids came with {len(self.groups)} groups")
        object.__setattr__(self, "labels", frozen(check_labels(self.labels, N, C)))
        if self.label_probs is not None:
            object.__setattr__(self, "label_probs", frozen(check_label_probs(self.label_probs, N, C)))
        if self.weights is not None:
            object.__setattr__(self, "weights", frozen(check_weights(self.weights, N)))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """bool, (N,): whether the row has a label or label probabilities."""
        if self.label_probs is not None:
            return np.ones(len(self), dtype=bool)
        return np.asarray(self.labels != UNKNOWN)

    def targets(self) -> FloatArray:
        """Return float32, (N, C), normalised: label probabilities where known, else one-hot labels.

        Raises:
            RecordError: a row has neither.
        """
        if self.label_probs is not None:
            return self.label_probs.astype(np.float32)
        unknown = np.flatnonzero(self.labels == UNKNOWN)
        if len(unknown):
            raise RecordError(
                f"expected a label for every row; {len(unknown)} have none "
                f"(ids {listed(self.ids[index] for index in unknown)})"
            )
        return np.eye(len(self.class_names), dtype=np.float32)[self.labels]

    def group_numbers(self) -> IntArray | None:
        """Return int64, (N,): each row's group, numbered as they come; None where there are no groups."""
        if self.groups is None:
            return None
        number_of = {name: number for number, name in enumerate(dict.fromkeys(self.groups))}
        return np.array([number_of[name] for name in self.groups], dtype=np.int64)

    def with_labels_alone(self) -> Examples:
        """Return the rows that have a label, without label probabilities."""
        return replace(self.take(self.labels != UNKNOWN), label_probs=None)

    def take(self, indices: ArrayLike) -> Examples:
        """Return the rows at these indices (or where this mask is true), in this order."""
        chosen = row_numbers(indices, len(self))
        return replace(
            self,
            ids=tuple(self.ids[index] for index in chosen),
            texts=tuple(self.texts[index] for index in chosen),
            labels=self.labels[chosen],
            label_probs=None if self.label_probs is None else self.label_probs[chosen],
            groups=None if self.groups is None else tuple(self.groups[index] for index in chosen),
            weights=None if self.weights is None else self.weights[chosen],
        )

    def fingerprint(self) -> str:
        """Return a sha256 over ids, texts, classes, labels and weights: equal data, equal fingerprint."""
        digest = hashlib.sha256()
        for part in (self.ids, self.texts, self.class_names):
            update_with_texts(digest, part)
        digest.update(self.labels.tobytes())
        digest.update(b"" if self.label_probs is None else self.label_probs.tobytes())
        digest.update(b"" if self.weights is None else self.weights.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Predictions:
    """What M members say of N examples in C classes: the one record in the middle of the project.

    Args:
        log_probs: float32, (M, N, C), each row normalised, in nats, never below ln 1e-12.
        ids: N unique names.
        class_names: C >= 2 unique names.
        labels: int64, (N,), -1 where unknown; all unknown if left out.
        label_probs: float64, (N, C), normalised; None where there are none.
        concentrations: float32, (N, C), positive: the Dirichlet that the system emits. Then M = 1
            and `log_probs` is the Dirichlet's mean.
        groups: int64, (N,): rows of one number belong together, and so tell less than rows that do not;
            None where none do.
        provenance: where the predictions come from: text by name.

    Raises:
        RecordError: wrong shape, not finite, not normalised, ids not unique.
    """

    log_probs: NDArray[np.float32]
    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: IntArray = None  # type: ignore[assignment]  # all unknown if left out
    label_probs: FloatArray | None = None
    concentrations: NDArray[np.float32] | None = None
    groups: IntArray | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        check_ids(self.ids)
        N, C = len(self.ids), len(self.class_names)
        log_probs = np.asarray(self.log_probs, dtype=np.float32)
        check_log_probs(log_probs, N, C)
        object.__setattr__(self, "log_probs", frozen(log_probs))
        labels = np.full(N, UNKNOWN) if self.labels is None else self.labels
        object.__setattr__(self, "labels", frozen(check_labels(labels, N, C)))
        if self.label_probs is not None:
            object.__setattr__(self, "label_probs", frozen(check_label_probs(self.label_probs, N, C)))
        if self.concentrations is not None:
            concentrations = np.asarray(self.concentrations, dtype=np.float32)
            check_concentrations(concentrations, log_probs)
            object.__setattr__(self, "concentrations", frozen(concentrations))
        if self.groups is not None:
            object.__setattr__(self, "groups", frozen(check_groups(self.groups, N)))

    @classmethod
    def from_logits(cls, logits: ArrayLike, examples: Examples, **provenance: str) -> Predictions:
        """Normalise logits, (M, N, C) or (N, C) for one member, into a record for these examples."""
        return cls._for_examples(normalised_log_probs(logits), examples, provenance)

    @classmethod
    def from_probs(cls, probs: ArrayLike, examples: Examples, **provenance: str) -> Predictions:
        """Make a record of probabilities, (M, N, C) or (N, C), whose rows sum to one within 1e-3.

        Raises:
            RecordError: a probability lies outside [0, 1], or a row does not sum to one.
        """
        return cls._for_examples(log_of_probs(probs), examples, provenance)

    @classmethod
    def from_log_concentrations(
        cls, log_concentrations: ArrayLike, examples: Examples, **provenance: str
    ) -> Predictions:
        """Make a record of log-concentrations z, (N, C): alpha = exp(z), mean = softmax(z)."""
        z = np.asarray(log_concentrations, dtype=np.float64)
        return cls._for_examples(
            normalised_log_probs(z), examples, provenance, concentrations=concentrations_of(z)
        )

    @classmethod
    def _for_examples(
        cls,
        log_probs: NDArray[np.float32],
        examples: Examples,
        provenance: Mapping[str, str],
        concentrations: NDArray[np.float32] | None = None,
    ) -> Predictions:
        return cls(
            log_probs=log_probs if log_probs.ndim == 3 else log_probs[None],
            ids=examples.ids,
            class_names=examples.class_names,
            labels=examples.labels,
            label_probs=examples.label_probs,
            concentrations=concentrations,
            groups=examples.group_numbers(),
            provenance=dict(provenance),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, C)."""
        M, N, C = self.log_probs.shape
        return M, N, C

    def member(self, index: int) -> Predictions:
        """Return the record of one member, M = 1."""
        return replace(self, log_probs=self.log_probs[index : index + 1])

    def take(self, indices: ArrayLike) -> Predictions:
        """Return the rows at these indices (or where this mask is true), in this order."""
        chosen = row_numbers(indices, len(self.ids))
        return replace(
            self,
            log_probs=self.log_probs[:, chosen],
            ids=tuple(self.ids[index] for index in chosen),
            labels=self.labels[chosen],
            label_probs=None if self.label_probs is None else self.label_probs[chosen],
            concentrations=None if self.concentrations is None else self.concentrations[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval; None where it is undefined.

    Args:
        value: the figure.
        low: the interval's lower end.
        high: the interval's upper end.
        spread: standard deviation over members, for figures that are a mean over members.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "spread"):
            number = getattr(self, name)
            if number is not None:
                finite = bool(np.isfinite(number))
                object.__setattr__(self, name, float(number) if finite else None)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise RecordError(f"expected low <= high, got [{self.low}, {self.high}]")

    def as_json(self) -> dict[str, float | None]:
        """Return the interval as report.json holds it: value, low, high, and spread where there is one."""
        shown = {"value": self.value, "low": self.low, "high": self.high}
        return shown if self.spread is None else {**shown, "spread": self.spread}


Scores = Mapping[str, Interval]
"""A system's figures by metric name."""


def unlabelled(texts: Sequence[str], class_names: Sequence[str]) -> Examples:
    """Return texts as examples of unknown class, their ids counted from 0.

    >>> unlabelled(["x", "y"], ("no", "yes")).ids
    ('0', '1')
    """
    ids = tuple(str(index) for index in range(len(texts)))
    return Examples(ids, tuple(texts), tuple(class_names), np.full(len(texts), UNKNOWN))


def concatenate(parts: Sequence[Examples]) -> Examples:
    """Join examples of the same classes; ids must stay unique over all parts.

    Label probabilities are kept where every part has them; groups and weights likewise.

    Raises:
        RecordError: the class names differ, or ids repeat.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.class_names != first.class_names:
            raise RecordError(f"expected classes {first.class_names}, got {part.class_names}")
    soft = [part.label_probs for part in parts if part.label_probs is not None]
    groups = [part.groups for part in parts if part.groups is not None]
    weights = [part.weights for part in parts if part.weights is not None]
    return Examples(
        ids=tuple(name for part in parts for name in part.ids),
        texts=tuple(text for part in parts for text in part.texts),
        class_names=first.class_names,
        labels=np.concatenate([part.labels for part in parts]),
        label_probs=np.concatenate(soft) if len(soft) == len(parts) else None,
        groups=tuple(name for group in groups for name in group) if len(groups) == len(parts) else None,
        weights=np.concatenate(weights) if len(weights) == len(parts) else None,
    )


def normalised_log_probs(logits: ArrayLike) -> NDArray[np.float32]:
    """Return log-softmax over the last axis, in double precision, floored at ln 1e-12, float32."""
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    log_probs = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return np.asarray(np.maximum(log_probs, LOWEST_LOG_PROB), dtype=np.float32)


def log_of_probs(probs: ArrayLike) -> NDArray[np.float32]:
    """Return checked probabilities as log-probabilities, renormalised, floored at ln 1e-12, float32.

    Raises:
        RecordError: a value is not finite or lies outside [0, 1], or a row does not sum to one.
    """
    p = np.asarray(probs, dtype=np.float64)
    check_probs(p)
    p = np.clip(p, 0.0, None)
    p = p / p.sum(axis=-1, keepdims=True)
    return np.asarray(np.log(np.maximum(p, np.exp(LOWEST_LOG_PROB))), dtype=np.float32)


def concentrations_of(log_concentrations: FloatArray) -> NDArray[np.float32]:
    """Return alpha = exp(z), float32, finite and positive, whose mean is softmax(z) at any z.

    A row whose largest z lies outside [-15, 30] is shifted as a whole, which keeps its mean and changes
    only how sure it is, beyond what any figure can tell; what then lies below -30 is raised to it.
    """
    z = np.asarray(log_concentrations, dtype=np.float64)
    top = z.max(axis=-1, keepdims=True)
    bounded = np.maximum(z - top + np.clip(top, -15.0, 30.0), -30.0)
    return np.asarray(np.exp(bounded), dtype=np.float32)


def check_probs(probs: FloatArray) -> None:
    """Raise RecordError unless every row holds probabilities that sum to one within 1e-3."""
    if not np.isfinite(probs).all():
        raise RecordError("expected finite probabilities, got NaN or infinity")
    low, high = float(probs.min(initial=0.0)), float(probs.max(initial=0.0))
    if low < -NORMALISATION_TOLERANCE or high > 1 + NORMALISATION_TOLERANCE:
        advice = "; these look like logits: apply a softmax first" if low < -1 or high > 2 else ""
        raise RecordError(
            f"expected probabilities in [0, 1], got values from {low:.4g} to {high:.4g}{advice}"
        )
    sums = probs.sum(axis=-1)
    worst = float(np.abs(sums - 1).max(initial=0.0))
    if worst > NORMALISATION_TOLERANCE:
        wrong = int((np.abs(sums - 1) > NORMALISATION_TOLERANCE).sum())
        raise RecordError(f"expected rows that sum to one; {wrong} rows are off, by up to {worst:.4g}")


def check_class_names(class_names: Sequence[str]) -> None:
    """Raise RecordError unless there are two or more class names, all different."""
    if len(class_names) < 2:
        raise RecordError(f"expected two classes or more, got {len(class_names)}: {listed(class_names)}")
    if len(set(class_names)) != len(class_names):
        raise RecordError(f"expected class names that differ, got {listed(class_names, 20)}")


def check_ids(ids: Sequence[str]) -> None:
    """Raise RecordError unless all ids differ."""
    if len(set(ids)) != len(ids):
        raise RecordError(f"expected unique ids; these repeat: {listed(repeated(ids))}")


def row_numbers(indices: ArrayLike, N: int) -> IntArray:
    """Return the row numbers, int64, that indices or a mask over N rows choose.

    >>> row_numbers([True, False, True], 3), row_numbers([], 3)
    (array([0, 2]), array([], dtype=int64))
    """
    array = np.asarray(indices)
    rows: IntArray = np.arange(N)
    return np.asarray(rows[array if array.size else array.astype(np.int64)])


def update_with_texts(digest: hashlib._Hash, texts: Sequence[str]) -> None:
    """Feed texts to a hash, each behind its length, so that no other texts give the same bytes.

    Parts count as well: a pair is read otherwise than the same words in one text.
    """
    digest.update(f"{len(texts)}\n".encode())
    for text in texts:
        if isinstance(text, PartedText):
            digest.update(f"parts {text.start} {text.stop} {text.boundary}\n".encode())
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}\n".encode() + encoded)


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, in order of their second occurrence.

    >>> repeated(["a", "b", "a", "a"])
    ['a']
    """
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


def check_labels(labels: ArrayLike, N: int, C: int) -> IntArray:
    """Return labels as int64, (N,), or raise RecordError."""
    array = np.asarray(labels)
    if array.shape != (N,):
        raise RecordError(f"expected labels of shape ({N},), got {array.shape}")
    if N and not np.issubdtype(array.dtype, np.integer):
        raise RecordError(f"expected integer labels, got {array.dtype}")
    if N and (array.min() < UNKNOWN or array.max() >= C):
        raise RecordError(f"expected labels from -1 to {C - 1}, got {array.min()} to {array.max()}")
    return array.astype(np.int64)


def check_groups(groups: ArrayLike, N: int) -> IntArray:
    """Return groups as int64, (N,), or raise RecordError."""
    array = np.asarray(groups)
    if array.shape != (N,) or (N and not np.issubdtype(array.dtype, np.integer)):
        raise RecordError(f"expected integer groups of shape ({N},), got {array.dtype} of {array.shape}")
    return array.astype(np.int64)


def check_label_probs(label_probs: ArrayLike, N: int, C: int) -> FloatArray:
    """Return label probabilities as float64, (N, C), renormalised exactly, or raise RecordError."""
    array = np.asarray(label_probs, dtype=np.float64)
    if array.shape != (N, C):
        raise RecordError(f"expected label probabilities of shape ({N}, {C}), got {array.shape}")
    check_probs(array)
    array = np.clip(array, 0.0, 1.0)
    return np.asarray(array / array.sum(axis=-1, keepdims=True) if N else array)


def check_weights(weights: ArrayLike, N: int) -> FloatArray:
    """Return weights as float64, (N,), or raise RecordError unless they are finite and not negative."""
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (N,):
        raise RecordError(f"expected weights of shape ({N},), got {array.shape}")
    if not (np.isfinite(array) & (array >= 0)).all():
        raise RecordError("expected finite weights of 0 or more, got others")
    return array


def check_log_probs(log_probs: FloatArray, N: int, C: int) -> None:
    """Raise RecordError unless log_probs is finite, normalised and of shape (M, N, C) with M >= 1."""
    if log_probs.ndim != 3 or log_probs.shape[0] < 1 or log_probs.shape[1:] != (N, C):
        raise RecordError(f"expected log_probs of shape (M, {N}, {C}), got {log_probs.shape}")
    if not np.isfinite(log_probs).all():
        raise RecordError("expected finite log_probs, got NaN or infinity")
    sums = np.exp(log_probs.astype(np.float64)).sum(axis=-1)
    if N and float(np.abs(sums - 1).max()) > NORMALISATION_TOLERANCE:
        raise RecordError(
            f"expected normalised log_probs; rows sum to {sums.min():.4g} up to {sums.max():.4g}"
        )


def check_concentrations(concentrations: FloatArray, log_probs: FloatArray) -> None:
    """Raise RecordError unless concentrations are positive, (N, C), and `log_probs` is their mean."""
    M, N, C = log_probs.shape
    if M != 1 or concentrations.shape != (N, C):
        raise RecordError(
            f"expected one member and concentrations ({N}, {C}), got M = {M}, {concentrations.shape}"
        )
    if not (np.isfinite(concentrations).all() and (concentrations > 0).all()):
        raise RecordError("expected finite positive concentrations")
    mean = concentrations / concentrations.sum(axis=-1, keepdims=True)
    if N and float(np.abs(mean - np.exp(log_probs[0])).max()) > NORMALISATION_TOLERANCE:
        raise RecordError("expected log_probs to be the concentrations' mean")


def frozen(array: NDArray) -> NDArray:  # type: ignore[type-arg]
    """Return a read-only array: the same one if nobody may write to it, else a copy."""
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array
