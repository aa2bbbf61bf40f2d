"""Sizes chosen to hurt, shared by the tests."""

# Element counts: empty, one, around one vector of every width, primes, one past a chunk of the elementwise driver.
COUNTS = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 127, 1009, 16385]
