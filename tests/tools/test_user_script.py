"""What fails in a script of the user is told by script, function and line."""

from __future__ import annotations

import os
import random
import sys

import pytest

from polygraphy_layerprec.tools.user_script import UserScriptError, load_function, load_iterator


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Writes a script to the working folder and returns its relative path."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "script.py") -> str:
        (tmp_path / name).write_text(text)
        return name

    return write


def failure(path: str, name: str = "load_data") -> str:
    with pytest.raises(UserScriptError) as raised:
        list(load_iterator(path, name, option="--data-loader-script"))
    return str(raised.value).splitlines()[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def load_data(:\n", "failed in line 1: SyntaxError:"),
        ("x = 1\nimport no_such_module\n", "failed in line 2: ModuleNotFoundError: No module"),
        (
            "def load_data():\n    yield 1\n    {}['ids']\n",
            "failed in `load_data`, line 3: KeyError",
        ),
        (
            "def deeper():\n    raise OSError('gone')\ndef load_data():\n    return deeper()\n",
            "failed in `deeper`, line 2: OSError: gone",
        ),
        (
            "def load_data():\n    int('x' * 3)\n",
            "`load_data`, line 2: ValueError: invalid literal",
        ),
        ("def load_data():\n    pass\n", "failed in `load_data`: TypeError: 'NoneType'"),
        ("def load_data(count):\n    pass\n", "failed in `load_data`: TypeError: load_data() miss"),
        ("load_data = 1\n", "has no function 'load_data'"),
        ("def other():\n    pass\n", "has no function 'load_data'"),
    ],
)
def test_a_failure_names_script_function_line_and_reason(script, text, said):
    found = failure(script(text))

    assert found.startswith("The script 'script.py' ")
    assert said in found


def test_a_failure_names_the_option_and_keeps_the_traceback(script):
    loss = load_function(script("def loss(y):\n    return y / 0\n"), "loss", option="--loss-script")

    with pytest.raises(UserScriptError, match="leave out `--loss-script`") as raised:
        loss(1)

    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_the_line_is_shown_as_the_user_wrote_it(script):
    text = "def deeper(y):\n    return y / 0  # here\ndef loss(y):\n    return deeper(y)\n"
    loss = load_function(script(text), "loss", option="--loss-script")

    with pytest.raises(UserScriptError) as raised:
        loss(1)

    assert str(raised.value).splitlines()[1] == "    return y / 0  # here"


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    raise KeyError('x')\n",
        "import numpy as np\ndef f():\n    np.linalg.inv(np.zeros((2, 2)))\n",
        "def f():\n    try:\n        1 / 0\n    except ArithmeticError:\n        raise KeyError\n",
        "def f(x):\n    pass\n",
        "raise KeyError('x')\n",
        "def f(:\n",
    ],
)
def test_the_traceback_is_the_scripts_and_none_of_ours(script, text):
    with pytest.raises(UserScriptError) as raised:
        load_function(script(text), "f", option="")()

    said = raised.value.traceback_text
    assert "Error" in said
    assert "polygraphy_layerprec" not in said
    assert "importlib" not in said
    assert said.count("Traceback") <= 2
    if "raise" in text:
        assert 'File "script.py", line ' in said


@pytest.mark.parametrize("leave", ["sys.exit(3)", "sys.exit('no data')", "raise SystemExit"])
@pytest.mark.parametrize("body", ["import sys\n{0}\n", "import sys\ndef load_data():\n    {0}\n"])
def test_a_script_that_ends_does_not_end_its_caller(script, leave, body):
    found = failure(script(body.format(leave)))

    assert "SystemExit" in found
    assert ", line 3" in found or "in line 2" in found


def test_a_mistake_in_what_the_script_imports_is_told_by_its_own_file(script):
    script("x = (\n", "layerprec_broken.py")

    found = failure(script("import layerprec_broken\ndef load_data():\n    pass\n"))

    assert "line 1 of " in found
    assert "layerprec_broken.py'" in found


def test_samples_come_one_at_a_time(script):
    counting = "seen = []\ndef f():\n    for x in 0, 1, 2:\n        seen.append(x)\n"

    samples = load_iterator(script(f"{counting}        yield x, len(seen)\n"), "f", option="")

    assert next(samples) == (0, 1)
    assert list(samples) == [(1, 2), (2, 3)]


def test_any_iterable_will_do(script):
    assert list(load_iterator(script("def f():\n    return [3, 4]\n"), "f", option="")) == [3, 4]


def test_what_runs_out_of_memory_is_not_the_scripts_fault(script):
    path = script("def load_data():\n    raise MemoryError\n")

    with pytest.raises(MemoryError):
        next(load_iterator(path, "load_data", option=""))


def test_a_script_may_be_called_like_a_module_of_the_library(script):
    path = script("def answer():\n    return 42\n", "random.py")

    assert load_function(path, "answer", option="")() == 42
    assert sys.modules["random"] is random


def test_a_script_imports_what_lies_beside_it_and_defines_dataclasses(script, tmp_path):
    (tmp_path / "nested").mkdir()
    script("VALUE = 7\n", "nested/layerprec_beside.py")
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass, field\n"
        "import layerprec_beside\n"
        "@dataclass\nclass Box:\n    x: int = field(default=layerprec_beside.VALUE)\n"
        "def f():\n    return Box().x\n"
    )

    path = os.path.join("nested", os.path.basename(script(text, "nested/script.py")))

    assert load_function(path, "f", option="")() == 7


def test_a_name_that_reads_as_a_number_is_a_name(script):
    path = script("def nan():\n    return [3]\n")

    assert list(load_iterator(path, float("nan"), option="--data-loader-script")) == [3]
