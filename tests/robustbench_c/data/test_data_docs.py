"""The examples of docs/data.md do what they say."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
EXAMPLES = re.findall(r"```python\n(.*?)# ([^\n]*)\n```", PAGE.read_text("utf-8"), re.DOTALL)


def test_the_page_has_an_example_of_each_kind():
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_example(code, output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out == output + "\n"
