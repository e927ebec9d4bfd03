"""Scripts are read back without being run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.emit.script_reading import load_network_script, parse_network_script
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.records import Constraint

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.just(
    '"); import os; os.abort() #'
)


def constraint(name: str = "layer", **fields) -> Constraint:
    values = {"op": "Add", "inputs": ("a",), "outputs": ("b",), "reason": "a test", **fields}
    return Constraint(name, **values)


@settings(max_examples=40)
@given(
    constraints=st.lists(
        st.builds(
            Constraint,
            NAMES,
            NAMES,
            st.lists(NAMES, max_size=2).map(tuple),
            st.lists(NAMES, max_size=2).map(tuple),
            NAMES,
        ),
        max_size=3,
    ),
    model_name=NAMES,
    precision=st.sampled_from([FP16, BF16]),
    io_precision=st.sampled_from(["fp32", "low"]),
    lenient=st.booleans(),
)
def test_what_is_written_is_read_back(constraints, model_name, precision, io_precision, lenient):
    text = render_network_script(
        constraints,
        precision=precision,
        model_name=model_name,
        model_digest="ab" * 32,
        allow_unmatched=lenient,
        io_precision=io_precision,
    )

    script = parse_network_script(text)

    assert script.constraints == tuple(constraints)
    assert (script.model_name, script.model_digest) == (model_name, "ab" * 32)
    assert (script.precision, script.io_precision) == (precision.name, io_precision)
    assert script.allow_unmatched is lenient
    assert not script.altered


def test_nothing_in_a_script_is_run(tmp_path):
    victim = tmp_path / "victim"
    text = render_network_script([constraint()], precision=FP16)
    path = tmp_path / "c.py"
    path.write_text(f"open({str(victim)!r}, 'w')\n{text}\nopen({str(victim)!r}, 'w')\n")

    script = load_network_script(path)

    assert script.constraints == (constraint(),)
    assert script.altered
    assert not victim.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not set PRECISION or CONSTRAINTS"),
        ("PRECISION = 'fp16'", "does not set CONSTRAINTS"),
        ("PRECISION = 'fp16'\nPRECISION = 'bf16'\nCONSTRAINTS = []", "sets PRECISION twice"),
        ("PRECISION = open('x', 'w')\nCONSTRAINTS = []", "malformed node"),
        ("PRECISION = 'fp16'\nCONSTRAINTS = [dict()]", "malformed node"),
        ("PRECISION = 'fp16'\nCONSTRAINTS = {[]: 1}", "more than literals"),
        ("PRECISION = 'int8'\nCONSTRAINTS = []", "PRECISION must be one of"),
        ("PRECISION = []\nCONSTRAINTS = []", "PRECISION must be one of"),
        ("PRECISION = 'fp16'\nIO_PRECISION = 3\nCONSTRAINTS = []", "IO_PRECISION must be"),
        ("PRECISION = 'fp16'\nMODEL_NAME = 3\nCONSTRAINTS = []", "MODEL_NAME is not text"),
        ("PRECISION = 'fp16'\nCONSTRAINTS = 3", "CONSTRAINTS is not a list"),
        ("PRECISION = 'fp16'\nCONSTRAINTS = []\nFP32_TENSORS = ['a', 3]", "FP32_TENSORS must be"),
        ("PRECISION = 'fp16'\nCONSTRAINTS = []\nLOW_TENSORS = 'ab'", "LOW_TENSORS must be names"),
        ("PRECISION = 'fp16'\nCONSTRAINTS = [{}]", "a constraint must have"),
        ("if True print", "no Python"),
        ("x = " + "(" * 10_000, "no Python"),
        ("x = 'a\0b'", "null bytes|no Python"),
    ],
)
def test_a_file_that_is_no_script_is_refused(tmp_path, text, message):
    path = tmp_path / "c.py"
    path.write_text(text)

    with pytest.raises(ValueError, match=message) as caught:
        load_network_script(path)

    assert "not a script of `polygraphy layerprec`" in str(caught.value)


@pytest.mark.parametrize(
    "field", [{"op": 3}, {"reason": None}, {"inputs": "ab"}, {"outputs": (1,)}]
)
def test_a_constraint_of_wrong_types_is_refused(field):
    values = {"name": "n", "op": "o", "inputs": (), "outputs": (), "reason": "r", **field}

    with pytest.raises(ValueError, match="of a constraint must be"):
        parse_network_script(f"PRECISION = 'fp16'\nCONSTRAINTS = [{values!r}]")


def test_binary_files_are_refused(tmp_path):
    path = tmp_path / "c.py"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ValueError, match="not a script"):
        load_network_script(path)
