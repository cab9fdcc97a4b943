"""Batches side by side: in order, equal to one after another, and nothing left behind."""

import threading

import numpy as np
import pytest
import torch

from credibly.batching import TokenBatch
from credibly.parallel import each_batch

CPU = torch.device("cpu")


def batch(number):
    nothing = torch.zeros((1, 1), dtype=torch.long)
    return TokenBatch(np.array([number]), nothing + number, nothing, nothing)


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_every_batch_comes_in_order_with_its_own_result(threads, count):
    found = list(each_batch(lambda own: int(own.input_ids) ** 2, map(batch, range(count)), CPU))
    assert [(int(own.indices[0]), result) for own, result in found] == [(n, n * n) for n in range(count)]
    assert torch.get_num_threads() == threads


def test_batches_share_the_threads(threads):
    def used(count):
        results = each_batch(lambda own: torch.get_num_threads(), map(batch, range(count)), CPU)
        return {result for _, result in results}

    assert used(9) == {1}
    assert used(1) == {threads}


def test_as_many_batches_run_at_a_time_as_there_are_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=30)
    try:
        # Each waits for the other: one after another would never end.
        assert len(list(each_batch(lambda own: meeting.wait(), map(batch, range(4)), CPU))) == 4
    finally:
        torch.set_num_threads(before)


def test_only_so_many_are_read_ahead(threads):
    read = []

    def many():
        for number in range(1000):
            read.append(number)
            yield batch(number)

    results = each_batch(lambda own: None, many(), CPU)
    next(results)
    assert len(read) <= threads + 2
    results.close()
    assert torch.get_num_threads() == threads


def test_a_failure_reaches_the_caller(threads):
    def fail(own):
        if int(own.input_ids) == 3:
            raise ValueError("batch 3")

    with pytest.raises(ValueError, match="batch 3"):
        list(each_batch(fail, map(batch, range(100)), CPU))
    assert torch.get_num_threads() == threads
    started_later = []
    worker = threading.Thread(target=lambda: started_later.append(torch.get_num_threads()))
    worker.start()
    worker.join()
    assert started_later == [threads]
