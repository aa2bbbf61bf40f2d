"""The benchmark command: its table, its roofline, its errors. Figures are not judged."""

import argparse
import sys

import pytest

import fastnn
from fastnn.__main__ import main
from fastnn.bench import command, timing
from fastnn.bench.workloads import WORKLOADS
from fastnn.cli import UsageError


def parse(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_bench_prints_the_limits_and_a_line_per_pass(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "roofline.png"
    command.run(parse("linear", "--threads", "1", "2", "--seconds", "0.01", "--plot", str(path)))
    output = capsys.readouterr().out
    assert output.count("peak") == 2 + 2  # the limits and the header, per number of threads
    assert output.count("linear 64x400 -> 120") == 4
    assert path.stat().st_size > 10_000


def test_bench_without_torch_has_no_columns_for_it_and_times_adam_once(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "roofline.png"
    command.run(parse("linear", "optim", "--threads", "1", "--seconds", "0.01", "--plot", str(path)))
    introduction, *table = capsys.readouterr().out.splitlines()
    assert "torch, which is not installed" in introduction
    assert "torch" not in "\n".join(table[:-1])  # the last line names the picture
    assert sum(line.startswith("Adam 11 M parameters  ") for line in table) == 1
    header = next(i for i, line in enumerate(table) if line.startswith("workload"))
    assert len({len(line) for line in table[header:-1]}) == 1


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_workload_builds_the_passes_that_it_names(workload):
    assert tuple(workload.build(None)) == workload.passes


def test_bench_names_the_families_it_knows():
    with pytest.raises(UsageError, match="bench: there is no family nonsense; choose from conv, linear"):
        command.run(parse("nonsense"))


def test_bench_says_before_it_measures_that_it_cannot_draw(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "print_table", None)
    with pytest.raises(UsageError, match=r"bench: there is no folder .*nowhere for the picture"):
        command.run(parse("--plot", str(tmp_path / "nowhere" / "roof.png")))
    with pytest.raises(UsageError, match=r"must end in \.png, \.pdf or \.svg, got roof$"):
        command.run(parse("--plot", "roof"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"bench: --plot needs matplotlib: .* -m pip install matplotlib$"):
        command.run(parse("--plot", str(tmp_path / "roof.png")))
    assert main(["bench", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("fastnn: bench: there is no family nonsense")


def test_medians_in_turn_calls_every_function_equally_often():
    calls = []
    first, second = timing.medians_in_turn([lambda: calls.append(1), lambda: calls.append(2)], 0.02)
    assert calls.count(1) == calls.count(2) >= 2
    assert first >= 0
    assert second >= 0


def test_bench_of_numpy_code_is_refused(capsys):
    with fastnn.backend("reference"):
        assert main(["bench", "linear"]) == 2
    assert capsys.readouterr().err == "fastnn: bench times the compiled kernels: leave FASTNN_BACKEND=reference out\n"
