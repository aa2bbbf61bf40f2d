"""The process's generator: it repeats after manual_seed, under threads too, and refuses what is no seed."""

import threading

import numpy as np
import pytest

import fastnn
from fastnn import seed


@pytest.fixture(autouse=True)
def restore_generator(monkeypatch):
    monkeypatch.setattr(seed, "current", seed.current)


def test_manual_seed_repeats_everything_drawn():
    for start in (0, 1, 2**64 - 1, np.int64(7)):
        fastnn.manual_seed(start)
        first = [seed.draw_seed(), seed.generator().standard_normal()]
        fastnn.manual_seed(start)
        assert [seed.draw_seed(), seed.generator().standard_normal()] == first


def test_drawn_seeds_are_words_of_64_bits_and_differ():
    fastnn.manual_seed(0)
    drawn = [seed.draw_seed() for _ in range(1000)]
    assert len(set(drawn)) == 1000
    assert all(0 <= value < 2**64 for value in drawn)
    assert max(drawn) > 2**63


def test_a_process_that_is_not_seeded_starts_anywhere(monkeypatch):
    drawn = set()
    for _ in range(3):
        monkeypatch.setattr(seed, "current", None)
        drawn.add(seed.draw_seed())
    assert len(drawn) == 3


def test_threads_share_the_stream_without_losing_or_repeating_a_seed():
    fastnn.manual_seed(0)
    expected = {seed.draw_seed() for _ in range(800)}
    fastnn.manual_seed(0)
    drawn = []
    workers = [threading.Thread(target=lambda: drawn.extend([seed.draw_seed() for _ in range(200)])) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(drawn) == 800
    assert set(drawn) == expected


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1.5, TypeError, r"manual_seed: seed must be an integer, got 1\.5"),
        (None, TypeError, r"manual_seed: seed must be an integer, got None"),
        (-1, ValueError, r"manual_seed: seed must be at least 0, got -1"),
        (2**64, ValueError, r"manual_seed: seed must be below 2\*\*64, got 18446744073709551616"),
    ],
)
def test_manual_seed_bad_input(value, error, message):
    with pytest.raises(error, match=message):
        fastnn.manual_seed(value)
