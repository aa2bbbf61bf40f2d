"""`python -m fastnn bench conv`: its layers, its table, its files, and the other libraries' results. Figures are not
judged."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn.__main__ import main
from fastnn.bench import command, conv_choice, conv_report, conv_timing, peers, timing
from fastnn.bench.conv_layers import LAYERS, Layer, select
from fastnn.bench.workloads import conv2d_arrays
from fastnn.machine import Limits

TINY = "lenet N1 C6"
COLUMNS = "layer forward d input d weight fwd ms bwd ms GF/s fwd bwd % fwd bwd"
PEERS = {peer.name: peer for peer in peers.PEERS}


def bench(*words):
    return main(["bench", "conv", "--seconds", "0.01", *words])


def without(monkeypatch, *names):
    """As if these packages were not installed."""
    version = peers.version
    monkeypatch.setattr(peers, "version", lambda package: None if package in names else version(package))


# layers


def test_the_layers_are_timed_at_their_own_batch_and_at_one_image():
    both = select("both", None)
    assert both == select("original", None) + select("1", None)
    assert len(both) == 2 * len(LAYERS) == 38
    assert {layer.images for layer in both[19:]} == {1}
    assert [layer.name for layer in select("1", ["lenet", "11x11"])] == [
        "lenet N1 C1 K6 32x32 5x5/1 p0",
        "lenet N1 C6 K16 14x14 5x5/1 p0",
        "alexnet N1 C3 K96 227x227 11x11/4 p0",
    ]


@pytest.mark.parametrize("layer", [LAYERS[0], LAYERS[9], LAYERS[13]], ids=lambda layer: layer.name)
def test_the_algorithms_and_the_operations_are_those_of_the_calls(layer, monkeypatch):
    """`choose` is asked by the kernels what `Layer.algorithms` asks it."""
    layer, asked = replace(layer, images=1), []
    native = sys.modules["fastnn.native.conv"]
    choose = native.choose
    monkeypatch.setattr(native, "choose", lambda *arguments: asked.append(choose(*arguments)) or asked[-1])
    forward, backward = peers.fastnn_calls(layer, conv2d_arrays(*layer.geometry), fastnn.get_num_threads())
    y = forward()
    backward()
    assert tuple(asked) == layer.algorithms
    assert layer.flops == 2 * y.size * layer.channels * layer.kernel**2


def test_the_arrays_of_a_layer_are_not_equal_where_their_shapes_are():
    """Sums of squares are so large that their rounding would pass for a wrong result."""
    x, weight, _, dy = conv2d_arrays(1, 2, 2, 3, 3, 1, 1)
    assert x.size == dy.size
    for a, b in ((x, dy), (x, weight), (dy, weight)):
        assert not np.intersect1d(a, b).size


# the table


def fewer_flops_on_more_threads(threads):
    return Limits(1e9 / threads, 1e9)


def test_without_peers_the_table_has_fastnn_alone_and_its_files_are_written(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    figures, picture = tmp_path / "figures.json", tmp_path / "bars.png"
    assert bench("--layers", TINY, "--threads", "1", "2", "--json", str(figures), "--plot", str(picture)) == 0
    output = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert lines.count(COLUMNS) == 2
    assert output.count(f"{TINY} K16 14x14 5x5/1 p0 ") == 2
    assert "ratios:" not in output.lower()
    first, second = json.loads(figures.read_text())["tables"]
    assert (first["threads"], second["threads"]) == (1, 2)
    assert first["limits"]["flops"] > 1e8
    assert set(first["rows"][0]["forward"]) == set(first["rows"][0]["backward"]) == {"fastnn"}
    assert picture.stat().st_size > 10_000


def test_peers_that_are_not_installed_are_left_out_and_said_so(capsys, monkeypatch):
    without(monkeypatch, "torch", "jax", "onnx")
    assert bench("--peers", "--layers", TINY, "--threads", "1") == 0
    output = capsys.readouterr().out
    assert COLUMNS in " ".join(output.split())
    for name, packages in (("torch", "torch"), ("jax", "jax"), ("onnxruntime", "onnxruntime onnx")):
        assert f"{name} is not installed and left out: {sys.executable} -m pip install {packages}\n" in output


def test_peers_that_are_installed_have_their_columns(capsys, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    picture, figures = tmp_path / "bars.png", tmp_path / "figures.json"
    assert bench("--peers", "--layers", TINY, "--threads", "1", "--plot", str(picture), "--json", str(figures)) == 0
    output = capsys.readouterr().out
    installed = [name for name, peer in PEERS.items() if peer.version]
    expected = [column for name in installed for column in ([name, "torch f+b"] if name == "torch" else [name])]
    header = next(line for line in output.splitlines() if line.startswith("layer"))
    assert " ".join(header.split()) == " ".join([COLUMNS, *expected, "best"])
    for name in [*expected, "best"]:
        assert f"\n{name:11} geometric mean " in output
    assert "of 1 rows below 1.0" in output
    assert list(json.loads(figures.read_text())["tables"][0]["rows"][0]["ratios"]) == [*expected, "best"]
    assert picture.stat().st_size > 10_000


def test_a_machine_that_seems_slower_on_more_threads_is_called_busy(capsys, monkeypatch):
    monkeypatch.setattr(conv_report, "measure_limits", fewer_flops_on_more_threads)
    assert bench("--layers", TINY, "--batch", "1", "--threads", "1", "2") == 0
    first, second = capsys.readouterr().out.split("\n2 threads")
    assert "busy" not in first
    assert "This machine is busy: its peak was higher on fewer threads." in second


def test_ratios_are_the_others_times_over_ours():
    forward = {"fastnn": 2.0, "torch": 3.0, "jax": 8.0}
    row = conv_timing.Row("layer", 1, ("im2col",) * 3, 12.0, forward, {"fastnn": 4.0, "torch": 9.0})
    assert row.ratios == {"torch": 1.5, "torch f+b": 2.0, "jax": 4.0, "best": 1.5}
    assert row.rates == (6.0, 6.0)


def test_algorithms_stand_beside_the_chosen_one(capsys, tmp_path):
    figures = tmp_path / "figures.json"
    geometries = ("--geometry", "2,3,8,12,5,1,2", "--geometry", "1,4,4,9,3,3,0")
    words = ("--algorithms", *geometries, "--threads", "1", "--json", str(figures))
    assert bench(*words) == 0
    output = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "layer operation im2col direct winograd fft patches grouped lost" in lines
    for operation in ("forward", "d input", "d weight"):
        assert sum(line.startswith(f"given N2 C3 K8 12x12 5x5/1 p2 {operation} ") for line in lines) == 1
        assert f"\n{operation:8} lost " in output
    (rows,) = json.loads(figures.read_text())["tables"]
    assert [set(row["seconds"]) for row in rows] == 3 * [{"im2col", "direct", "winograd", "fft"}] + 3 * [
        {"im2col", "direct"}
    ]
    for row in rows:
        assert row["lost"] == row["seconds"][row["chosen"]] / min(row["seconds"].values()) >= 1


def test_kinds_of_an_algorithm_have_columns_of_their_own(capsys):
    assert bench("--algorithms", "--geometry", "1,3,8,32,8,8,0", "--threads", "1") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "8x8/8 p0" in line and " forward " in line]
    assert line.split()[-3].endswith("*")  # "patches", before "grouped" and what was lost


def test_every_algorithm_of_the_comparison_computes_by_itself(monkeypatch):
    asked = []
    monkeypatch.setattr(
        conv_choice, "medians_in_turn", lambda calls, seconds: [asked.append(call()) or 1 for call in calls]
    )
    monkeypatch.setattr(F, "conv2d", lambda *arguments: asked.append(fastnn.get_conv_algorithm()))
    conv_choice.compare_algorithms(Layer("odd", 1, 2, 3, 9, 3, 1, 1), fastnn.get_num_threads(), 0.01)
    assert [name for name in asked if name] == ["im2col", "direct", "winograd", "fft"]
    assert fastnn.get_conv_algorithm() == "auto"


def test_the_chosen_algorithm_is_auto_s_choice_whatever_is_forced():
    with fastnn.conv_algorithm("im2col"):
        rows = conv_choice.compare_algorithms(Layer("odd", 1, 64, 64, 32, 3, 1, 1), fastnn.get_num_threads(), 0.01)
    assert [row.chosen for row in rows] == ["winograd"] * 3


# the libraries


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("layer", [Layer("odd", 2, 3, 5, 11, 3, 2, 1), Layer("plain", 1, 4, 2, 6, 1, 1, 0)])
def test_a_library_computes_what_fastnn_computes(name, layer):
    for package in PEERS[name].packages:
        pytest.importorskip(package)
    arrays = x, weight, bias, dy = conv2d_arrays(*layer.geometry)
    forward, backward = PEERS[name].build(layer, arrays, 1)
    np.testing.assert_allclose(
        np.asarray(forward()), F.conv2d(x, weight, bias, layer.stride, layer.padding), rtol=1e-4, atol=1e-5
    )
    if backward:
        expected = F.conv2d_backward(dy, x, weight, bias, layer.stride, layer.padding)
        for ours, theirs in zip(expected, backward(), strict=True):
            np.testing.assert_allclose(np.asarray(theirs), ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("position", "what"), [(0, "output"), (1, "gradients")])
def test_a_wrong_result_is_found(position, what):
    def build(layer, arrays, threads):
        calls = list(peers.fastnn_calls(layer, arrays, threads))
        right = calls[position]()
        wrong = right + np.float32(0.1) if position == 0 else [right[0], right[1] * np.float32(1.001), right[2]]
        calls[position] = lambda: wrong
        return calls

    broken = peers.Library("broken", (), build, "")
    layer = select("1", [TINY])[0]
    with pytest.raises(
        conv_timing.WrongResult, match=f"{TINY}.*: the {what} of fastnn and broken differ by .*e-0[23] "
    ):
        conv_timing.measure(layer, fastnn.get_num_threads(), 0.01, [broken])


def wrong_calls(layer, arrays, threads):
    return lambda: np.zeros_like(arrays[3]), None


def dying_calls(layer, arrays, threads):
    import os

    os._exit(1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (wrong_calls, "bench: lenet N1 C6 .*: the output of fastnn and broken differ by .* of the RMS, more than"),
        (dying_calls, "bench: the process that timed lenet N1 C6 .* died; is there enough memory?"),
    ],
)
def test_a_wrong_result_or_a_lost_process_stops_the_run_with_one_line(build, message, monkeypatch):
    monkeypatch.setattr(command, "PEERS", [peers.Library("broken", ("numpy",), build, "")])
    with pytest.raises(SystemExit, match=message):
        bench("--peers", "--layers", TINY, "--threads", "1")


def test_jax_is_limited_before_it_starts():
    environment = {}
    peers.limit_jax(environment, 3)
    assert environment["PJRT_NPROC"] == "3"


def test_a_burst_waits_for_threads_that_spin(monkeypatch):
    """Three looks at the clock while something runs, and one more once nothing does."""
    clock, processor, sleeps = [0.0], [0.0], []

    def sleep(seconds):
        sleeps.append(seconds)
        clock[0] += seconds
        processor[0] += seconds if len(sleeps) <= 3 else 0

    monkeypatch.setattr(timing.time, "sleep", sleep)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: processor[0])
    timing.wait_until_idle()
    assert len(sleeps) == 4


def test_a_layer_beyond_all_memory_ends_the_command_in_a_line():
    with pytest.raises(SystemExit, match=r"^fastnn: bench: given N100000000000 .*: .*\d") as ended:
        bench("--geometry", "100000000000,64,64,56,3,1,1", "--threads", "1")
    assert "\n" not in str(ended.value)


# wrong usage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["conv", "--layers", "nonsense"], "no layer has nonsense in its name; they are named after lenet, course, "),
        (["linear", "--peers"], "--peers belongs to conv or steps or inference alone: python -m fastnn bench conv"),
        (["conv", "linear", "--json", "x"], "--json belongs to conv or steps or inference alone"),
        (["--layers", "lenet"], "--layers belongs to conv alone"),
        (["conv", "--algorithms", "--peers"], "--algorithms compares fastnn's own, as a table: leave out --peers"),
        (["conv", "--geometry", "1,1,1,1,1,1,0", "--batch", "1"], "--geometry stands for itself: leave out --layers"),
        (["conv", "--json", "no/such/x.json"], "there is no folder no/such for the figures"),
        (["conv", "--plot", "no/such/x.png"], "there is no folder no/such for the picture"),
    ],
)
def test_wrong_usage_gets_one_line_before_anything_is_measured(words, message, capsys):
    pytest.importorskip("matplotlib")
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fastnn: bench: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seconds", "0"], "argument --seconds: must be a number above 0, got '0'"),
        (["--seconds", "nan"], "argument --seconds: must be a number above 0, got 'nan'"),
        (["--threads", "0"], "argument --threads: must be a whole number from 1 up, got '0'"),
        (["--batch", "2"], "argument --batch: invalid choice: '2'"),
        (["--geometry", "1,2,3"], "argument --geometry: must be seven whole numbers N,C,K,H,R,stride,padding like"),
        (["--geometry", "1,2,3,4,x,1,0"], "argument --geometry: must be seven whole numbers"),
        (["--geometry", "0,2,3,4,3,1,0"], "argument --geometry: must be numbers from 1 up, and a padding from 0 up"),
        (
            ["--geometry", "1,2,3,4,7,1,0"],
            "argument --geometry: has a filter of 7x7, larger than the padded image of 4",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_the_option_it_was_given_for(words, message, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "conv", *words])
    assert message in capsys.readouterr().err
