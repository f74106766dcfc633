"""Take the fenced code blocks out of the README, so that CI runs what a reader runs.

    python tools/readme_blocks.py show "Quick start" sh 2   print the second sh block of a section
    python tools/readme_blocks.py run                       run all Python blocks, compare outputs
    python tools/readme_blocks.py update                    write outputs and pictures anew

Python blocks share their names, as when a reader pastes one after the other. Where a `text` block
follows directly, the output has to be equal to it.
"""

import argparse
import contextlib
import io
import linecache
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
PICTURES = README.parent / "docs"


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


def run(markdown: str, name: str, folder: str | Path) -> list[tuple[Block | None, str]]:
    """Run the Python blocks in a folder: what each prints, and the block that says what it should.

    The blocks see the folder as the current one, and write their files there.
    """
    found = blocks(markdown)
    # Where `inspect` finds the source of the blocks' functions.
    linecache.cache[name] = (len(markdown), None, markdown.splitlines(keepends=True), name)
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: list[tuple[Block | None, str]] = []
    python = [(index, block) for index, block in enumerate(found) if block.language == "python"]
    for index, block in python:
        # The blank lines make tracebacks, and the lines that graphdl names, those of the README.
        code = compile("\n" * (block.line - 1) + block.text, name, "exec")
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.chdir(folder):
            exec(code, namespace)
        printed.append((expected_output(found, index, markdown), output.getvalue()))
    return printed


def problems(printed: list[tuple[Block | None, str]], name: str) -> list[str]:
    """What the README says wrongly; nothing if all is well."""
    return [
        f"{name}:{expected.line}: the block above prints\n{output}"
        f"but the README says\n{expected.text}"
        for expected, output in printed
        if expected is not None and output != expected.text
    ]


def updated(markdown: str, printed: list[tuple[Block | None, str]]) -> str:
    """The README with what its blocks print."""
    lines = markdown.splitlines(keepends=True)
    for expected, output in reversed(printed):
        if expected is not None:
            lines[expected.line - 1 : expected.end - 1] = output.splitlines(keepends=True)
    return "".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print one block")
    show.add_argument("section")
    show.add_argument("language")
    show.add_argument("number", type=int)
    commands.add_parser("run", help="run the Python blocks, compare what they print")
    commands.add_parser("update", help="write what the Python blocks print, and their pictures")
    arguments = parser.parse_args()
    markdown = README.read_text(encoding="utf-8")
    if arguments.command == "show":
        chosen = select(blocks(markdown), arguments.section, arguments.language)
        if not 1 <= arguments.number <= len(chosen):
            parser.error(f"{arguments.section!r} has {len(chosen)} {arguments.language} blocks")
        print(chosen[arguments.number - 1].text, end="")
        return 0
    if arguments.command == "update":
        with tempfile.TemporaryDirectory() as folder:
            # Twice, because outputs name lines of the README, which the first time can move.
            for _ in range(2):
                markdown = updated(markdown, run(markdown, README.name, folder))
            for picture in Path(folder).glob("*.svg"):
                shutil.copy(picture, PICTURES)
        README.write_text(markdown, encoding="utf-8")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        printed = run(markdown, README.name, folder)
    wrong = problems(printed, README.name)
    print("".join(output for _, output in printed), end="")
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
