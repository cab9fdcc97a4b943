"""What Prometheus reads: counters, histograms and gauges in its text format, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass
class Histogram:
    """Counts of values by upper bound.

    Args:
        bounds: in rising order; what lies above the last is counted as well.

    >>> seconds = Histogram((0.1, 1.0))
    >>> for value in (0.05, 0.1, 3.0):
    ...     seconds.add(value)
    >>> print(*seconds.lines("wait"), sep=chr(10))
    wait_bucket{le="0.1"} 2
    wait_bucket{le="1.0"} 2
    wait_bucket{le="+Inf"} 3
    wait_sum 3.15
    wait_count 3
    """

    bounds: Sequence[float]
    total: float = 0.0
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value; one that equals a bound lies below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of its buckets, its sum and its count."""
        below = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.total:.9g}"
        yield f"{name}_count {below}"


@dataclass
class Metrics:
    """The service's figures since it started; changed by its event loop alone.

    Args:
        requests: answered requests, by path and status.
        texts: texts answered.
        request_seconds: from a request's head to the end of its answer, of ``/predict``.
        batch_texts: texts that the model was given at once.
        batch_seconds: that it took for them.
        queue: tells how many texts wait.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    texts: int = 0
    request_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batch_texts: Histogram = field(default_factory=lambda: Histogram(TEXTS))
    batch_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    queue: Callable[[], int] = int

    def text(self) -> str:
        """Return all figures as Prometheus reads them."""
        requests = (
            f'credibly_requests_total{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self.requests.items())
        )
        blocks = [
            ("requests_total", "counter", "Requests by path and status.", requests),
            ("texts_total", "counter", "Texts answered.", [f"credibly_texts_total {self.texts}"]),
            (
                "queue_texts",
                "gauge",
                "Texts that wait for the model.",
                [f"credibly_queue_texts {self.queue()}"],
            ),
            *(
                (name, "histogram", what, histogram.lines(f"credibly_{name}"))
                for name, what, histogram in (
                    ("request_seconds", "Seconds to answer a request of /predict.", self.request_seconds),
                    ("batch_texts", "Texts the model was given at once.", self.batch_texts),
                    ("batch_seconds", "Seconds the model took for them.", self.batch_seconds),
                )
            ),
        ]
        lines = (
            line
            for name, kind, what, samples in blocks
            for line in (f"# HELP credibly_{name} {what}", f"# TYPE credibly_{name} {kind}", *samples)
        )
        return "\n".join(lines) + "\n"
