"""The README's example runs as it stands."""

from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_readme_example_learns(capsys):
    code = README.read_text().split("```python\n")[1].split("```")[0]
    exec(code, {})
    word, loss = capsys.readouterr().out.split()
    assert word == "loss"
    assert float(loss) < 1.5
