"""The README keeps its promises on form; `.ci/run` runs what its blocks say."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MARKDOWN = (ROOT / "README.md").read_text(encoding="utf-8")


def _tool():
    spec = importlib.util.spec_from_file_location(
        "readme_blocks", ROOT / "tools" / "readme_blocks.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme_blocks = _tool()
QUICK_START = readme_blocks.select(readme_blocks.blocks(MARKDOWN), "Quick start", "sh")


def test_quick_start_has_exactly_two_sh_blocks():
    assert len(QUICK_START) == 2


@pytest.mark.parametrize("block", QUICK_START, ids=["main job", "tests"])
def test_each_quick_start_block_stands_alone(block):
    assert re.match(r"python3 -m venv \.venv\n", block.text)
    assert re.search(r"^\.venv/bin/python -m pip install ", block.text, re.MULTILINE)


def test_quick_start_runs_the_demo_then_the_tests():
    assert QUICK_START[0].text.splitlines()[-1] == ".venv/bin/graphdl demo"
    assert QUICK_START[1].text.splitlines()[-1] == ".venv/bin/python -m pytest -n auto"


def test_pictures_and_links_into_the_repository_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", MARKDOWN)
    assert any(target.endswith(".svg") for target in targets)
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_blocks_know_their_section_language_and_lines():
    markdown = "# A\n```sh\nls\n```\n## B\ntext\n```python\nx = 1\n\n# no heading\n```\n"
    assert readme_blocks.blocks(markdown) == [
        readme_blocks.Block("A", "sh", "ls\n", 3, 4),
        readme_blocks.Block("B", "python", "x = 1\n\n# no heading\n", 8, 11),
    ]


def test_a_block_without_an_end_is_refused():
    with pytest.raises(ValueError, match="starts at line 2 has no end"):
        readme_blocks.blocks("a\n```sh\nls\n")


@pytest.mark.parametrize(
    ("said", "wrong"), [("3\n", 0), ("4\n", 1), ("", 1)], ids=["right", "wrong", "nothing"]
)
def test_python_blocks_share_names_and_their_output_is_compared(said, wrong, tmp_path):
    markdown = f"```python\nx = 3\n```\n```python\nprint(x)\n```\n\n```text\n{said}```\n"
    printed = readme_blocks.run(markdown, "README.md", tmp_path)
    assert [output for _, output in printed] == ["", "3\n"]
    assert len(readme_blocks.problems(printed, "README.md")) == wrong
    new = readme_blocks.updated(markdown, printed)
    assert new == markdown.replace(f"```text\n{said}", "```text\n3\n")
    assert not readme_blocks.problems(readme_blocks.run(new, "README.md", tmp_path), "README.md")


def test_blocks_write_their_files_into_the_folder_given(tmp_path):
    readme_blocks.run("```python\nopen('a.svg', 'w').close()\n```\n", "README.md", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


def test_text_that_follows_after_a_sentence_is_not_compared(tmp_path):
    markdown = "```python\nprint(1)\n```\nFor instance:\n```text\n2\n```\n"
    assert readme_blocks.run(markdown, "README.md", tmp_path) == [(None, "1\n")]


def test_a_failing_block_names_its_line_in_the_readme(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        readme_blocks.run("# A\n\n```python\nx = 1\n1 / 0\n```\n", "README.md", tmp_path)
    assert caught.traceback[-1].lineno == 4  # counted from 0
