"""`python -m graphdl.coverage [--write FILE]`: the page, printed or written."""

from __future__ import annotations

import argparse
from pathlib import Path

from graphdl.coverage.page import findings, page


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m graphdl.coverage", description=__doc__)
    parser.add_argument("--write", metavar="FILE", type=Path, help="write the page into a file")
    parser.add_argument("--why", action="store_true", help="print the names that do not work")
    options = parser.parse_args(arguments)
    found = findings()
    if options.why:
        for title, names in found.items():
            for finding in names:
                if finding.why:
                    print(f"{title}.{finding.name}: {finding.example}: {finding.why}")
    elif options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(page(found), encoding="utf-8")
    else:
        print(page(found), end="")


if __name__ == "__main__":
    main()
