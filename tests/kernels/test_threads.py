"""Work is shared out whole, errors come out of threads, and BLAS gets its own threads back."""

import multiprocessing

import pytest

from maskrcnn.kernels import threads
from maskrcnn.kernels.threads import one_blas_thread, share


@pytest.mark.parametrize("most", [None, 1, 2])
@pytest.mark.parametrize("total", [0, 1, 63, 64, 127, 128, 1000])
def test_work_is_shared_without_gaps(total, most, monkeypatch):
    monkeypatch.setattr(threads, "THREADS", 3)
    ranges = []
    share(total, 64, lambda start, stop: ranges.append((start, stop)), most)
    assert len(ranges) == max(min(most or 3, total // 64), 1)
    assert sorted(k for start, stop in ranges for k in range(start, stop)) == list(range(total))


def test_the_error_of_a_thread_comes_out(monkeypatch):
    monkeypatch.setattr(threads, "THREADS", 2)

    def work(start, stop):
        if start == 0:
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        share(200, 64, work)


def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(threads, "THREADS", 2)
    share(200, 64, lambda start, stop: None)
    child = multiprocessing.get_context("fork").Process(target=share, args=(200, 64, lambda start, stop: None))
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
