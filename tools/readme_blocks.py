"""Take the fenced code blocks out of the README, so that CI runs what a reader runs.

    python tools/readme_blocks.py show "Quick start" sh 2   print the second sh block of a section
    python tools/readme_blocks.py run                       run all Python blocks, in order

Python blocks share their names, as when a reader pastes one after the other. Where a `text` block
follows directly, the output has to be equal to it.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


@dataclass(frozen=True)
class Block:
    """A fenced block: its heading, its language, its text, and where the text starts and ends."""

    section: str
    language: str
    text: str
    line: int
    end: int


def blocks(markdown: str) -> list[Block]:
    """All fenced blocks of a Markdown text, in order.

    >>> blocks("# A\\n```sh\\nls\\n```\\n")
    [Block(section='A', language='sh', text='ls\\n', line=3, end=4)]
    """
    found: list[Block] = []
    section, language, start = "", None, 0
    lines = markdown.splitlines()
    for number, line in enumerate(lines, 1):
        if language is None and line.startswith("```"):
            language, start = line[3:].strip(), number + 1
        elif language is not None and line == "```":
            text = "".join(f"{body}\n" for body in lines[start - 1 : number - 1])
            found.append(Block(section, language, text, start, number))
            language = None
        elif language is None and line.startswith("#"):
            section = line.lstrip("#").strip()
    if language is not None:
        raise ValueError(f"the block that starts at line {start - 1} has no end")
    return found


def select(found: list[Block], section: str, language: str) -> list[Block]:
    """The blocks of one section in one language."""
    return [block for block in found if block.section == section and block.language == language]


def expected_output(found: list[Block], index: int, markdown: str) -> Block | None:
    """The `text` block that follows block `index` with only blank lines between."""
    if index + 1 == len(found) or found[index + 1].language != "text":
        return None
    between = markdown.splitlines()[found[index].end : found[index + 1].line - 2]
    return None if any(line.strip() for line in between) else found[index + 1]


def run(markdown: str, name: str, folder: str) -> list[str]:
    """Run the Python blocks in a folder; returns what was wrong, nothing if all is well."""
    found = blocks(markdown)
    namespace: dict[str, object] = {"__name__": "__main__"}
    problems: list[str] = []
    python = [(index, block) for index, block in enumerate(found) if block.language == "python"]
    for index, block in python:
        # The blank lines make tracebacks, and the lines that graphdl names, those of the README.
        code = compile("\n" * (block.line - 1) + block.text, name, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(folder):
            exec(code, namespace)
        output = printed.getvalue()
        print(f"{name}:{block.line}\n{output}", end="")
        expected = expected_output(found, index, markdown)
        if expected is not None and output != expected.text:
            problems.append(
                f"{name}:{expected.line}: the block above prints\n{output}"
                f"but the README says\n{expected.text}"
            )
    return problems


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print one block")
    show.add_argument("section")
    show.add_argument("language")
    show.add_argument("number", type=int)
    commands.add_parser("run", help="run the Python blocks")
    arguments = parser.parse_args()
    markdown = README.read_text(encoding="utf-8")
    if arguments.command == "show":
        chosen = select(blocks(markdown), arguments.section, arguments.language)
        if not 1 <= arguments.number <= len(chosen):
            parser.error(f"{arguments.section!r} has {len(chosen)} {arguments.language} blocks")
        print(chosen[arguments.number - 1].text, end="")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        problems = run(markdown, README.name, folder)
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
