from __future__ import annotations

import argparse
import contextlib
import importlib
import pkgutil
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import tests.attack
from tests.attack import Kind, Tally, attack
from tests.forked_commands import ForkedCommands

PAGE = Path(__file__).parents[2] / "docs" / "RELIABILITY.md"
BEGIN, END = "<!-- written by python -m tests.attack: begin -->", "<!-- end -->"
HEAD = """| kind | what was tried | how often | worked | one clear line | broke | longest | memory |
|---|---|---:|---:|---:|---:|---:|---:|"""


def kinds() -> list[str]:
    """The modules of attacks."""
    names = [module.name for module in pkgutil.iter_modules(tests.attack.__path__)]
    return [name for name in names if not name.startswith("_")]


def row(name: str, kind: Kind, tally: Tally) -> str:
    counts = f"{tally.tried:,} | {tally.well:,} | {tally.refused:,} | {len(tally.broken)}"
    took = f"{tally.longest_s:.1f} s | {tally.largest / 2**20:.0f} MiB"
    return f"| {name} | {kind.TRIED} | {counts} | {took} |"


def write(rows: dict[str, str]) -> None:
    """Put the rows of kinds into the page's table, in place of those that it has of them."""
    before, rest = PAGE.read_text().split(BEGIN, 1)
    table, after = rest.split(END, 1)
    old = {line.split("|")[1].strip(): line for line in table.strip().splitlines()[2:]}
    known = old | rows
    body = [known[name] for name in kinds() if name in known]
    PAGE.write_text("\n".join([f"{before}{BEGIN}", "", HEAD, *body, "", f"{END}{after}"]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=tests.attack.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(kinds()))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--keep", help="folder that keeps the inputs")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(kinds()):
        parser.error(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(kinds())}")
    rows: dict[str, str] = {}
    broken = 0
    print(HEAD, flush=True)
    with contextlib.closing(ForkedCommands()) as commands, tempfile.TemporaryDirectory() as made:
        for name in options.kinds or kinds():
            folder = Path(options.keep or made) / name
            folder.mkdir(parents=True, exist_ok=True)
            kind = cast(Kind, importlib.import_module(f"tests.attack.{name}"))
            count = max(1, round(options.scale * kind.COUNT))
            start = time.monotonic()
            tally = attack(kind, commands, folder, count, options.seed, options.only)
            rows[name] = row(name, kind, tally)
            print(rows[name], flush=True)
            print(
                f"{name}: {time.monotonic() - start:.0f} s",
                *tally.broken,
                sep="\n",
                file=sys.stderr,
            )
            broken += len(tally.broken)
    if options.scale == 1.0 and not options.only:
        write(rows)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
