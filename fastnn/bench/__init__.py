"""Benchmarks: what each function achieves on this machine, beside its limits and beside PyTorch where installed.

machine.py    the limits: multiply-adds in registers and memory traffic, measured first
workloads.py  the calls that are timed, with the operations and bytes each must at least perform and move
timing.py     medians of calls made in turn
report.py     the table and the roofline
"""
