"""What a profile notes of each call, and its table and trace."""

import json
import sys
import threading

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
from fastnn.machine import Limits


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    """Round figures in place of those of this machine."""
    monkeypatch.setattr(fastnn.profiler, "measure_limits", lambda threads: Limits(1e11 * threads, 1e10))
    fastnn.profiler.limits_of.cache_clear()
    yield
    fastnn.profiler.limits_of.cache_clear()


def floats(*shape):
    return np.ones(shape, np.float32)


def parameter_with_gradient():
    parameter = nn.Parameter(floats(100))
    parameter.grad = floats(100)
    return parameter


CALLS = {
    "relu": (lambda: F.relu(floats(3, 5)), [("relu", "3x5", 0, 120)]),
    "two inputs": (lambda: F.relu_backward(floats(3, 5), floats(3, 5)), [("relu_backward", "3x5, 3x5", 0, 180)]),
    "scalar result": (
        lambda: F.cross_entropy(floats(4, 3), np.zeros(4, np.int64)),
        [("cross_entropy", "4x3x1, 4x1", 0, 80)],
    ),
    "conv": (
        lambda: F.conv2d(floats(2, 4, 9, 7), floats(6, 2, 3, 3), stride=2, padding=1, groups=2),
        [("conv", "2x4x9x7, 6x2x3x3", 2 * (2 * 6 * 5 * 4) * 18, 4 * (504 + 108 + 240))],
    ),
    "conv backward": (
        lambda: F.conv2d_backward(floats(2, 6, 5, 4), floats(2, 4, 9, 7), floats(6, 2, 3, 3), None, 2, 1, groups=2),
        [
            ("conv_input_grad", "2x6x5x4, 6x2x3x3", 2 * 240 * 18, 4 * (240 + 108 + 504)),
            ("conv_weight_grad", "2x6x5x4, 2x4x9x7", 2 * 240 * 18, 4 * (240 + 504 + 108)),
        ],
    ),
    "transposed conv": (
        lambda: F.conv_transpose2d(floats(2, 3, 4, 4), floats(3, 5, 2, 2), stride=2),
        [("conv_input_grad", "2x3x4x4, 3x5x2x2", 2 * 96 * 20, 4 * (96 + 60 + 640))],
    ),
    "linear": (
        lambda: F.linear(floats(7, 5), floats(3, 5), floats(3)),
        [("linear", "7x5, 3x5, 3", 2 * 7 * 15, 4 * (35 + 15 + 3 + 21))],
    ),
    "linear backward": (
        lambda: F.linear_backward(floats(7, 3), floats(7, 5), floats(3, 5), needs=(False, True, False)),
        [("linear_backward", "7x3, 7x5, 3x5", 2 * 7 * 15, 4 * (21 + 35 + 15 + 15))],
    ),
    "adam": (
        lambda: optim.Adam([floats(100), floats(20)]).step([floats(100), floats(20)]),
        [("adam_", "8 arrays of 480", 0, 7 * 4 * 120)],
    ),
    "clipping": (
        lambda: optim.clip_grad_norm_([parameter_with_gradient()], 1e-3),
        [("sum_of_squares", "100", 0, 400), ("scale_", "100", 0, 800)],
    ),
}


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", CALLS)
def test_profile_notes_arrays_operations_and_bytes(name, backend):
    function, expected = CALLS[name]
    with fastnn.backend(backend), fastnn.profile() as p:
        function()
    assert [(call.kernel, call.arrays, call.flops, call.bytes) for call in p.calls] == expected
    assert all(call.seconds > 0 and 0 <= call.start <= p.seconds for call in p.calls)
    assert sum(call.seconds for call in p.calls) <= p.seconds


def test_profile_names_the_algorithm_of_a_convolution():
    x, w = floats(2, 16, 12, 12), floats(16, 16, 3, 3)
    with fastnn.profile() as outer:
        for algorithm in ("im2col", "winograd", "direct"):
            with fastnn.conv_algorithm(algorithm), fastnn.profile() as p:
                F.conv2d(x, w)
                F.relu(x)
            assert [(call.algorithm, call.title) for call in p.calls] == [
                (algorithm, f"conv {algorithm}"),
                ("", "relu"),
            ]
            assert f"conv {algorithm} " in p.table()
    assert [call.title for call in outer.calls if call.algorithm] == ["conv im2col", "conv winograd", "conv direct"]
    assert sys.modules["fastnn.conv_algorithm"].observer is None


def profile_until_error(x):
    try:
        with fastnn.profile() as p:
            F.sigmoid(x)
            raise ZeroDivisionError
    except ZeroDivisionError:
        return p


def test_profile_ends_with_its_block_and_holds_others():
    x = floats(3)
    with fastnn.profile() as outer:
        F.relu(x)
        with fastnn.profile() as inner:
            F.tanh(x)
        failed = profile_until_error(x)
        F.relu(x)
    F.relu(x)
    assert [call.kernel for call in outer.calls] == ["relu", "tanh", "sigmoid", "relu"]
    assert [call.kernel for call in inner.calls] == ["tanh"]
    assert [call.kernel for call in failed.calls] == ["sigmoid"]
    assert failed.seconds > 0


def test_profile_sees_other_threads():
    with fastnn.profile() as p:
        thread = threading.Thread(target=F.relu, args=(floats(3),))
        thread.start()
        thread.join()
        F.relu(floats(3))
    assert len({call.thread for call in p.calls}) == 2


def profile_of(*calls):
    p = fastnn.profiler.Profile()
    p.calls, p.seconds, p.threads = [fastnn.profiler.Call(*call, 0) for call in calls], 0.01, 2
    return p


def test_table_adds_up_calls_and_compares_with_the_limits():
    p = profile_of(
        ("relu", "10", 0.0, 1e-3, 0.0, 5e6),  # half of the bandwidth
        ("conv", "a", 0.002, 2e-3, 3e8, 1.0),  # 150 of 200 GFLOP/s
        ("conv", "b", 0.005, 4e-3, 4e8, 1.0),  # 100
    )
    lines = p.table().splitlines()
    assert [line.split() for line in lines] == [
        ["kernel", "calls", "ms", "time", "GFLOP/s", "GB/s", "roofline"],
        ["conv", "2", "6.000", "60%", "116.7", "0.0", "58%"],
        ["relu", "1", "1.000", "10%", "5.0", "50%"],
        ["elsewhere:", "Python,", "NumPy", "3.000", "30%"],
        ["all", "3", "10.000", "100%"],
    ]
    assert len({len(line) for line in lines[:3]}) == 1
    assert str(p) == p.table()
    assert [line.split()[:2] for line in p.table("arrays").splitlines()[1:4]] == [
        ["conv", "b"],
        ["conv", "a"],
        ["relu", "10"],
    ]
    with pytest.raises(ValueError, match=r"Profile.table: by must be 'kernel' or 'arrays', got 'shape'"):
        p.table("shape")


def test_table_of_nothing():
    with fastnn.profile() as p:
        pass
    assert [line.split()[0] for line in p.table().splitlines()] == ["kernel", "elsewhere:", "all"]


def test_chrome_trace_has_an_event_per_call(tmp_path):
    with fastnn.profile() as p:
        F.relu(floats(3, 5))
        F.linear(floats(7, 5), floats(3, 5))
    p.export_chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == ["relu", "linear"]
    for event, call in zip(events, p.calls, strict=True):
        assert event["ph"] == "X"
        assert event["ts"] == pytest.approx(call.start * 1e6)
        assert event["dur"] == pytest.approx(call.seconds * 1e6)
        assert event["args"]["arrays"] == call.arrays
    assert events[0]["ts"] + events[0]["dur"] <= events[1]["ts"]


def test_profile_of_a_training_step_accounts_for_its_time():
    model, criterion = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 10)), nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters())
    with fastnn.profile() as p:
        criterion(model(floats(64, 300)), np.zeros(64, np.int64))
        model.backward(criterion.backward(), needs_input_grad=False)
        optimizer.step()
    kernels = [call.kernel for call in p.calls]
    backward = ["linear_backward", "relu_backward", "linear_backward", "adam_"]
    assert kernels == ["linear", "linear", "cross_entropy_with_grad", *backward]
