"""Closed-loop clients of a service, in a process of their own: each asks again when it has its answer.

    python -m benchmarks.service_load ADDRESS TEXTS_FILE CLIENTS TEXTS_A_REQUEST SECONDS

Bare sockets, requests written out beforehand: it takes as little of the processor as a client can, and
says how much. The first second is not counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

WARM_UP_SECONDS = 1.0


@dataclass
class Seen:
    """What the clients saw.

    Args:
        seconds: of each answered request.
        statuses: counts by status.
        wrong: answers with another number of rows than texts asked for.
        refused_without_advice: 429s that do not say when to come again.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    refused_without_advice: int = 0


def main() -> None:
    """Ask as told, and print what was seen as JSON."""
    address, file, *numbers = sys.argv[1:]
    clients, size, seconds = map(int, numbers)
    texts = json.loads(Path(file).read_text(encoding="utf-8"))
    print(json.dumps(asyncio.run(load(address, texts, clients, size, seconds))))


async def load(address: str, texts: list[str], clients: int, size: int, seconds: float) -> dict[str, Any]:
    """Return what so many clients saw in so many seconds."""
    host, port = address.removeprefix("http://").split(":")
    requests = [request_of(texts[start : start + size]) for start in range(0, len(texts) - size + 1, size)]
    seen = Seen()
    first = time.perf_counter() + WARM_UP_SECONDS
    last = first + seconds
    processor = [0.0]
    asyncio.get_running_loop().call_later(WARM_UP_SECONDS, lambda: processor.append(time.process_time()))
    await asyncio.gather(
        *(client(host, int(port), requests, number, size, (first, last), seen) for number in range(clients))
    )
    return {
        "texts_per_second": seen.statuses[200] * size / seconds,
        "requests_per_second": seen.statuses[200] / seconds,
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items())},
        "wrong_answers": seen.wrong,
        "refused_without_advice": seen.refused_without_advice,
        "milliseconds": percentiles(seen.seconds),
        "processor_seconds": (time.process_time() - processor[-1]) / seconds,
    }


async def client(
    host: str,
    port: int,
    requests: list[bytes],
    number: int,
    size: int,
    span: tuple[float, float],
    seen: Seen,
) -> None:
    """Ask until the time is over, beginning at another request than the other clients."""
    reader, writer = await asyncio.open_connection(host, port)
    while (asked := time.perf_counter()) < span[1]:
        number += 1
        writer.write(requests[number * 7 % len(requests)])
        status, head, body = await answer(reader)
        done = time.perf_counter()
        if not span[0] <= done <= span[1]:
            continue
        seen.statuses[status] += 1
        if status == 200:
            seen.seconds.append(done - asked)
            seen.wrong += body.count(b'"total"') != size
        elif status == 429:
            seen.refused_without_advice += b"retry-after: " not in head.lower()
            await asyncio.sleep(0.05)
    writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Read one answer: status, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head[9:12]), head, await reader.readexactly(length)


def request_of(texts: list[str]) -> bytes:
    """Return a request for answers, as bytes."""
    body = json.dumps({"texts": texts}, ensure_ascii=False).encode()
    head = (
        f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return median, 99th percentile and largest, in milliseconds."""
    if len(seconds) < 2:
        return {}
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {"median": 1000 * cuts[49], "p99": 1000 * cuts[98], "largest": 1000 * max(seconds)}


if __name__ == "__main__":
    main()
