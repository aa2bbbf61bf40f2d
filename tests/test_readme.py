"""The examples of README.md and docs/nn.md run as they stand."""

from pathlib import Path

import numpy as np

from tests.oracle import assert_gradient, numerical_gradient

README = Path(__file__).parent.parent / "README.md"


def test_readme_example_learns_and_saves(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = README.read_text().split("```python\n")[1].split("```")[0]
    exec(code, {})
    word, loss = capsys.readouterr().out.split()
    assert word == "loss"
    assert float(loss) < 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


def test_the_modules_of_the_page_for_those_who_know_torch_learn_and_have_right_gradients():
    code = (README.parent / "docs" / "nn.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code, names)
    assert names["loss"] < 0.3
    model = names["TwoHeads"]().to("float64")
    x = np.random.default_rng(0).standard_normal((3, 4))
    expected = numerical_gradient(lambda x: np.concatenate(model.eval()(x), axis=1), x, np.ones((3, 5)))
    model.train()(x)
    assert_gradient(model.backward((np.ones((3, 2)), np.ones((3, 3)))), expected)
