"""Threads cover the work and raise their errors; BLAS gets its threads back."""

import multiprocessing

import pytest

from maskrcnn.winograd import threads
from maskrcnn.winograd.threads import one_blas_thread, run_in_threads


@pytest.mark.parametrize("max_threads", [None, 1, 2])
@pytest.mark.parametrize("total", [0, 1, 63, 64, 127, 128, 1000])
def test_ranges_cover_the_work_without_gaps(total, max_threads, monkeypatch):
    monkeypatch.setattr(threads, "THREADS", 3)
    ranges = []
    run_in_threads(total, 64, lambda start, stop: ranges.append((start, stop)), max_threads)
    assert len(ranges) == max(min(max_threads or 3, total // 64), 1)
    assert sorted(k for start, stop in ranges for k in range(start, stop)) == list(range(total))


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(threads, "THREADS", 2)

    def work(start, stop):
        if start == 0:
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        run_in_threads(200, 64, work)


def test_a_forked_process_has_its_own_threads(monkeypatch):
    monkeypatch.setattr(threads, "THREADS", 2)
    run_in_threads(200, 64, lambda start, stop: None)
    child = multiprocessing.get_context("fork").Process(target=run_in_threads, args=(200, 64, lambda start, stop: None))
    child.start()
    child.join(30)
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0


def blas_threads():
    return [library["num_threads"] for library in threads._blas().info() if library["user_api"] == "blas"]


def test_blas_gets_its_threads_back():
    before = blas_threads()
    assert before
    with one_blas_thread:
        with one_blas_thread:
            pass
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
