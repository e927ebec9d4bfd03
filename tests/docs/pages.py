"""The documentation's pages as programs: their commands and scripts, run as written.

A fenced block tagged `bash` or `python` is run, one tagged with a name of `SHOWN` is not, and any
other block is an error, so that nothing escapes. The comments
`<!-- Polygraphy Test: Ignore Start -->` and `<!-- Polygraphy Test: Ignore End -->` surround blocks
that cannot run; `XFAIL` in place of `Ignore` those that must fail, each at its last command.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from markdown_it import MarkdownIt

from tests.processes import LONGEST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from markdown_it.token import Token

__all__ = ["Block", "PageError", "needs_tensorrt", "read_blocks", "run_page"]

Handling = Literal["run", "ignore", "fail"]

SHOWN: Final = ("text", "json", "yaml", "diff")
"""Tags of blocks that are shown, and never run. So are directives of the site: `{toctree}`."""

_COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    # The line on which a command fails; `-E` because functions and subshells fail as well.
    "bash": ("bash", "-eEuo", "pipefail"),
    "python": ("python",),
}
_REPORTING: Final = "trap 'echo \"failed at line $LINENO\" >&2' ERR\n"
_FAILED_LINE: Final = {
    "bash": re.compile(r"^failed at line (\d+)$", re.MULTILINE),
    "python": re.compile(r'^  File "[^"]*\.block\.python", line (\d+)', re.MULTILINE),
}
_MARKER: Final = re.compile(r"<!--\s*Polygraphy Test:\s*(.*?)\s*-->", re.DOTALL)
_MARKERS: Final[dict[str, Handling]] = {"Ignore": "ignore", "XFAIL": "fail"}
_NEEDS_TENSORRT: Final = re.compile(
    r"polygraphy (?:convert|debug)|--trt(?:\s|$)|--trt-(?:npps|network)|--display-as[ =]trt"
    r"|--backend[ =]tensorrt|\.engine\b|import tensorrt"
)


class PageError(Exception):
    """What is wrong with a page: which page, which line, and what the command said."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block that is meant to be run."""

    tag: str
    """`bash` or `python`."""

    text: str
    """What stands between the fences."""

    line: int
    """Line of the page on which the text begins, from 1."""

    handling: Handling
    """Whether it runs, is left out, or must fail."""


def read_blocks(page: Path) -> list[Block]:
    """Returns the blocks of a Markdown file that are meant to be run, in order.

    Raises:
        PageError: If a block has no tag or an unknown one, or a comment lacks its other half.
    """
    blocks, handling, opened = [], "run", 0
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        for words in _markers_of(token):
            handling = _handling_after(words, handling, f"{page.name}, line {line}")
            opened = line
        if token.type == "code_block":
            raise PageError(f"{page.name}, line {line}: a block without fences, so without a tag")
        if token.type == "fence" and _is_run(token.info.strip(), f"{page.name}, line {line}"):
            blocks.append(Block(token.info.strip(), token.content, line + 1, handling))
    if handling != "run":
        raise PageError(f"{page.name}, line {opened}: the comment has no end")
    return blocks


def run_page(
    page: Path,
    folder: Path,
    environment: Mapping[str, str],
    *,
    leave_out: Collection[Block] = (),
) -> int:
    """Runs the blocks of a page in order, each in a shell of its own, and returns how many.

    Args:
        page: The Markdown file.
        folder: Working folder of all blocks.
        environment: Variables, in place of this process's own.
        leave_out: Blocks not to run.

    Raises:
        PageError: If a block fails, or succeeds where it must not.
    """
    todo = [b for b in read_blocks(page) if b.handling != "ignore" and b not in leave_out]
    for block in todo:
        done = _run(block, folder, environment)
        said = f"{block.text}\n{done.stdout}{done.stderr}"
        if block.handling == "fail":
            _check_failure(block, done, f"{page.name}, line {block.line}", said)
        elif done.returncode != 0:
            line = block.line + (_failed_line(block, done) or 1) - 1
            raise PageError(f"{page.name}, line {line}: exit code {done.returncode}\n{said}")
    return len(todo)


def needs_tensorrt(block: Block) -> bool:
    """Tells whether a block builds engines, or takes one: it names the option or the file."""
    return _NEEDS_TENSORRT.search(block.text) is not None


def _markers_of(token: Token) -> Iterator[str]:
    nested: list[Any] = token.children or []
    for part in (token, *nested):
        if part.type in ("html_block", "html_inline"):
            yield from _MARKER.findall(part.content)


def _handling_after(words: str, before: Handling, where: str) -> Handling:
    kind, _, edge = words.partition(" ")
    if kind not in _MARKERS or edge not in ("Start", "End"):
        raise PageError(f"{where}: no such comment: {words!r}")
    if before != ("run" if edge == "Start" else _MARKERS[kind]):
        raise PageError(f"{where}: {words!r} has no other half")
    return _MARKERS[kind] if edge == "Start" else "run"


def _is_run(tag: str, where: str) -> bool:
    if tag in _COMMANDS:
        return True
    if tag in SHOWN or re.fullmatch(r"\{[\w:-]+\}.*", tag):
        return False
    known = ", ".join((*_COMMANDS, *SHOWN))
    raise PageError(f"{where}: the block is tagged {tag!r}, which is none of: {known}")


def _run(
    block: Block, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    # In the folder, so that a script can import what lies there; hidden from the page's commands.
    script = folder / f".block.{block.tag}"
    script.write_text((_REPORTING if block.tag == "bash" else "") + block.text, encoding="utf-8")
    return subprocess.run(
        [*_COMMANDS[block.tag], os.fspath(script)],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


def _failed_line(block: Block, done: subprocess.CompletedProcess[str]) -> int | None:
    """Line of the block, from 1, on which a command failed; None where nobody can tell."""
    lines = _FAILED_LINE[block.tag].findall(done.stderr)
    return int(lines[-1]) - (block.tag == "bash") if lines else None


def _check_failure(
    block: Block, done: subprocess.CompletedProcess[str], where: str, said: str
) -> None:
    if done.returncode == 0:
        raise PageError(f"{where}: succeeded, but is marked XFAIL\n{said}")
    lines = block.text.splitlines()
    if block.tag == "bash":
        # Commands after the one that fails never run: each needs a block of its own.
        rest = lines[(_failed_line(block, done) or 1) - 1 : -1]
        if not all(line.endswith("\\") for line in rest):
            raise PageError(f"{where}: failed before its last command\n{said}")
