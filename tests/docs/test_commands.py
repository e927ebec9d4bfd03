"""Every command of the README, the documentation and the examples runs as written."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from tests.docs.pages import PageError, needs_tensorrt, read_blocks, run_page
from tests.environments import ROOT

PAGES = sorted(
    page
    for pattern in ("README.md", "docs/**/*.md", "examples/**/README.md")
    for page in ROOT.glob(pattern)
)
HAS_TENSORRT = importlib.util.find_spec("tensorrt_rtx") is not None


@pytest.fixture
def run(tmp_path, environment):
    """Runs the text of a page in a folder of its own, and returns how many blocks that were."""
    folder = tmp_path / "folder"
    folder.mkdir()

    def run_text(text: str) -> int:
        page = tmp_path / "page.md"
        page.write_text(text)
        return run_page(page, folder, environment)

    return run_text


@pytest.mark.onnxrt
@pytest.mark.trt
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs_as_written(page, tmp_path, demo_model, environment):
    blocks = read_blocks(page)
    left_out = [] if HAS_TENSORRT else [block for block in blocks if needs_tensorrt(block)]
    folder = tmp_path / page.parent.relative_to(ROOT)
    if page.is_relative_to(ROOT / "examples"):  # which use what lies beside and above them
        shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(demo_model, folder, dirs_exist_ok=True)

    done = run_page(page, folder, environment, leave_out=left_out)

    expected = [block for block in blocks if block.handling != "ignore"]
    assert done == len(expected) - len({*left_out} & {*expected})


def test_the_readme_and_the_examples_show_commands():
    assert read_blocks(ROOT / "README.md")
    examples = [page for page in PAGES if page.parent.parent.parent == ROOT / "examples"]
    assert len(examples) >= 8
    assert all(any(b.handling == "run" for b in read_blocks(page)) for page in examples)


def test_commands_share_a_folder_and_go_on_over_lines(run, tmp_path):
    first = "```bash\nprintf '%s\\n' \\\n  a b \\\n  > words\n```\n\n"
    nested = "- Listed:\n\n  ```bash\n  wc -l words\n  ```\n\n"
    last = "```python\nassert open('words').read() == 'a\\nb\\n'\n```\n"

    assert run(first + nested + last) == 3
    assert (tmp_path / "folder" / "words").exists()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("# Title\n\n```bash\ntrue\nls /no/such\n```\n", "page.md, line 5: exit code 2"),
        ("```bash\nfalse | true\n```\n", "page.md, line 2: exit code 1"),
        ("```bash\necho $UNDEFINED\n```\n", "page.md"),
        ("```bash\nfalse\ntrue\n```\n", "page.md, line 2"),
        ("```python\nx = 1\n\nassert x == 2\n```\n", "page.md, line 4"),
        ("```python\ndef f(:\n```\n", "page.md, line 2"),
    ],
    ids=["with its output", "in a pipe", "a variable", "not the last", "script", "syntax"],
)
def test_a_command_that_fails_fails_the_page(run, text, where):
    with pytest.raises(PageError) as failure:
        run(text)

    assert where in str(failure.value)


def test_a_failure_shows_the_command_and_what_it_said(run):
    with pytest.raises(PageError, match=r"(?s)echo out.*out.*trouble"):
        run("```bash\necho out; echo trouble >&2; exit 3\n```\n")


def marked(kind: str, text: str) -> str:
    start, end = (f"<!-- Polygraphy Test: {kind} {edge} -->" for edge in ("Start", "End"))
    return f"{start}\n{text}{end}\n\n"


def test_commands_that_are_ignored_do_not_run(run):
    ignored = marked("Ignore", "```bash\ntouch ran\nfalse\n```\n```python\n1 / 0\n```\n")

    assert run(ignored + "```bash\ntest ! -e ran\n```\n") == 1


def test_a_command_that_must_fail_may_fail(run):
    failing = marked("XFAIL", "```bash\ncd /no/such \\\n  --really\n```\n")

    assert run(failing + "```bash\ntrue\n```\n") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```bash\ntrue\n```\n", "line 3: succeeded, but is marked XFAIL"),
        ("```python\nx = 1\n```\n", "line 3: succeeded, but is marked XFAIL"),
        ("```bash\nfalse\ntrue\n```\n", "failed before its last command"),
    ],
)
def test_a_command_that_must_fail_and_succeeds_fails_the_page(run, text, message):
    with pytest.raises(PageError, match=message):
        run(marked("XFAIL", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\n```\nls\n```\n",
            "line 2: the block is tagged '', which is none of: bash, python, text",
        ),
        ("```sh\nls\n```\n", "tagged 'sh'"),
        ("~~~ bash extra\nls\n~~~\n", "tagged 'bash extra'"),
        ("> ```console\n> ls\n> ```\n", "tagged 'console'"),
        ("Text.\n\n    ls\n", "line 3: a block without fences"),
        (marked("Skip", ""), "no such comment: 'Skip Start'"),
        ("<!-- Polygraphy Test: Ignore Start -->\n", "line 1: the comment has no end"),
        ("<!-- Polygraphy Test: Ignore End -->\n", "'Ignore End' has no other half"),
        (marked("XFAIL", marked("Ignore", "")), "'Ignore Start' has no other half"),
    ],
)
def test_nothing_escapes(run, text, message):
    with pytest.raises(PageError) as failure:
        run(text)

    assert message in str(failure.value)


def test_outputs_and_directives_do_not_run(run):
    assert run("```text\nrm -rf .\n```\n\n```{toctree} x\nindex\n```\n\n```json\n{}\n```\n") == 0


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("polygraphy convert model.onnx -o model.engine", True),
        ("polygraphy run model.onnx --trt", True),
        ("polygraphy run model.engine", True),
        ("polygraphy layerprec verify model.onnx --backend tensorrt", True),
        ("polygraphy layerprec rank model.onnx --trt-min-shapes x:[1]", False),
        ("polygraphy run model.onnx --onnxrt", False),
    ],
)
def test_commands_that_need_tensorrt_are_told_by_what_they_name(tmp_path, command, needs):
    page = tmp_path / "page.md"
    page.write_text(f"```bash\n{command}\n```\n")

    assert [needs_tensorrt(block) for block in read_blocks(page)] == [needs]
