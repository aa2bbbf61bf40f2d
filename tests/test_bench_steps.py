"""`python -m fastnn bench steps`: its nets, their translations, its table and its files. Figures are not judged."""

import json
from functools import partial

import numpy as np
import pytest

from fastnn import models, nn
from fastnn.__main__ import main
from fastnn.bench import inference_peers, step_peers, step_report, step_timing
from fastnn.bench.conv_timing import WrongResult
from fastnn.bench.step_nets import NETS, Net

SMALL = [
    Net("mlp", partial(models.MLP, 48, 16, 4), 5, (3, 4, 4), 4),
    Net("vgg", partial(models.VGG, ((4,), (6,)), 2, 8, 3), 6, (2, 8, 8), 3),
    Net("resnet", partial(models.ResNet18, 3, 1, True), 8, (1, 16, 16), 3),
]


def one_block():
    """Every kind of layer that the nets have, small."""
    body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
    return nn.Sequential(
        nn.Conv2d(2, 4, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Residual(body, nn.Conv2d(4, 4, 1)),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.0),
        nn.Linear(16, 3),
    )


SMALL.append(Net("block", one_block, 4, (2, 16, 16), 3))


def bench(*words):
    return main(["bench", "steps", "--seconds", "0.01", "--threads", "1", *words])


def test_the_nets_are_those_of_the_literature():
    counts = {net.name: sum(parameter.size for parameter in net.build().parameters()) for net in NETS}
    assert counts["resnet18"] == 11_689_512  # torchvision's
    assert counts["alexnet"] == 61_100_840
    assert counts["lenet"] == 61_706
    assert counts["course"] == 3 * 32 * 49 + 32 + 8192 * 100 + 100 + 1010


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("net", SMALL, ids=str)
def test_the_losses_of_all_libraries_fall_alike(net, name):
    for package in {"torch": ["torch"], "jax": ["jax", "optax"]}[name]:
        pytest.importorskip(package)
    (library,) = [peer for peer in step_peers.PEERS if peer.name == name]
    ours, theirs = step_peers.FASTNN.build(net, 1), library.build(net, 1)
    losses = np.array([(ours(), theirs()) for _ in range(6)])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-3, atol=1e-3)
    assert losses[-1, 0] < losses[0, 0]


@pytest.mark.parametrize("name", ["torch", "torch last", "onnxruntime"])
@pytest.mark.parametrize("net", SMALL, ids=str)
def test_the_scores_of_all_libraries_are_alike(net, name):
    (library,) = [peer for peer in inference_peers.PEERS if peer.name == name]
    for package in library.packages:
        pytest.importorskip(package)
    scores = inference_peers.FASTNN.build(net, 1)()
    np.testing.assert_allclose(library.build(net, 1)(), scores, rtol=0, atol=1e-4 * np.abs(scores).max())


def test_inference_has_every_net_with_one_image_and_with_32():
    nets = inference_peers.inference_nets()
    assert {net.name for net in nets} == {net.name for net in NETS}
    assert len(nets) == 2 * len({net.name for net in NETS})
    assert main(["bench", "inference", "--seconds", "0.01", "--threads", "1", "--nets", "lenet"]) == 0


def test_other_losses_end_the_measurement():
    wrong = step_peers.Library("wrong", ("numpy",), lambda net, threads: lambda: 7.0, "")
    with pytest.raises(WrongResult, match=r"mlp, batch 5: the first results are .* but wrong's \[7. 7. 7.\]"):
        step_timing.measure(SMALL[0], 1, 0.01, [step_peers.FASTNN, wrong])


def test_layers_without_a_translation_are_named():
    pytest.importorskip("torch")
    with pytest.raises(NotImplementedError, match="no translation of Tanh"):
        step_peers.torch_module(nn.Tanh())


def test_without_peers_the_table_has_fastnn_alone(capsys, tmp_path):
    figures = tmp_path / "figures.json"
    assert bench("--nets", "lenet", "--json", str(figures)) == 0
    output = capsys.readouterr().out
    assert "lenet, batch 64" in output
    assert "atio" not in output
    (row,) = json.loads(figures.read_text())["rows"]
    assert (row["net"], row["threads"], set(row["seconds"])) == ("lenet, batch 64", 1, {"fastnn"})
    assert row["seconds"]["fastnn"] > 0
    assert row["memory"]["fastnn"] > 0


def test_the_chart_has_a_bar_per_net_and_library(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [step_timing.Row(str(net), 1, {"fastnn": 1.0, "a": 2.0, "b": 0.5}, {}) for net in SMALL]
    assert rows[0].ratios == {"a": 2.0, "b": 0.5, "best": 0.5}
    step_report.plot({1: rows, 2: rows}, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nets", "transformer"], "no net has transformer in its name; there are mlp, lenet"),
        (["--layers", "lenet"], "--layers belongs to conv alone"),
        (["--plot", "bars.png"], "steps draws ratios: add --peers"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_measured(capsys, words, message):
    assert bench(*words) != 0
    assert message in capsys.readouterr().err
