"""The emitted script: what stands in it, and that it builds in a process of its own."""

from __future__ import annotations

import ast
import gc
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.emit.network_script import render_network_script, save_network_script
from polygraphy_layerprec.precision import BF16, FP16, Precision
from polygraphy_layerprec.records import Constraint
from tests.emit.networks import MODELS, make_model
from tests.emit.test_network_names import HOSTILE_NAMES, chain, kept_tensors
from tests.processes import LONGEST_SECONDS

POLYGRAPHY = [sys.executable, "-c", "from polygraphy.tools import main; main()"]


def constraint(name="Gemm_h", op="Gemm", inputs=("x", "w0", "b0"), outputs=("h",), reason="big"):
    return Constraint(name, op, tuple(inputs), tuple(outputs), reason)


def literals(text):
    """The settings and constraints of a script, read without running it."""
    found = {}
    for node in ast.parse(text).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id.isupper() and target.id[0] != "_":
            try:
                found[target.id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def load(text, folder, name="constraints_under_test"):
    """The script as a module that nothing but the result holds."""
    path = Path(folder, f"{name}.py")
    save_network_script(text, str(path))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_is_written_in_the_grammar_of_python_3_8():
    text = render_network_script([constraint()], precision=FP16, model_name="m.onnx")

    ast.parse(text, feature_version=(3, 8))
    with pytest.raises(SyntaxError):
        ast.parse("with (a as b, c as d):\n    pass\n", feature_version=(3, 8))


def polygraphy(*arguments, folder):
    environment = os.environ | {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    return subprocess.run(
        [*POLYGRAPHY, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )


def test_the_data_are_literals_with_reasons():
    text = render_network_script(
        [constraint(), constraint(name="other", reason="overflow: |x| up to 8.1e5")],
        precision=BF16,
        model_name="model.onnx",
        model_digest="abc",
        allow_unmatched=True,
        io_precision="low",
    )

    data = literals(text)
    assert data["CONSTRAINTS"][0] == {
        "reason": "big",
        "name": "Gemm_h",
        "op": "Gemm",
        "inputs": ("x", "w0", "b0"),
        "outputs": ("h",),
    }
    assert data["CONSTRAINTS"][1]["reason"] == "overflow: |x| up to 8.1e5"
    assert (data["MODEL_NAME"], data["MODEL_DIGEST"]) == ("model.onnx", "abc")
    assert (data["PRECISION"], data["IO_PRECISION"]) == ("bf16", "low")
    assert data["ALLOW_UNMATCHED"] is True


def test_the_same_input_gives_the_same_text():
    texts = {render_network_script([constraint()], precision=FP16) for _ in range(3)}
    program = """if True:
        import sys
        from polygraphy_layerprec.emit.network_script import render_network_script
        from polygraphy_layerprec.precision import FP16
        from polygraphy_layerprec.records import Constraint
        constraint = Constraint("Gemm_h", "Gemm", ("x", "w0", "b0"), ("h",), "big")
        sys.stdout.write(render_network_script([constraint], precision=FP16))
    """
    other = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )

    assert texts == {other.stdout}


def test_the_script_stands_alone():
    text = render_network_script([], precision=FP16)

    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported <= set(sys.stdlib_module_names) | {"numpy"}
    assert "polygraphy_layerprec" not in text


def test_every_name_in_the_script_is_defined(tmp_path):
    pytest.importorskip("ruff")
    path = tmp_path / "constraints.py"
    save_network_script(render_network_script([constraint()], precision=FP16), str(path))

    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_the_header_gives_the_command_for_every_kind_of_tensorrt():
    header = ast.get_docstring(ast.parse(render_network_script([], precision=BF16)))

    assert "--bf16" in header
    assert "--precision-constraints obey --trt-npps constraints.py" in header
    assert "--strongly-typed --trt-npps constraints.py" in header
    assert "-o model.engine --trt-npps constraints.py" in header


@pytest.mark.parametrize(
    "options", [{"precision": Precision("fp8", 3, -6, 8)}, {"precision": FP16, "io_precision": "x"}]
)
def test_settings_that_no_script_can_have_are_refused(options):
    with pytest.raises(ValueError, match=r"precision must be one of"):
        render_network_script([], **options)


@settings(max_examples=100)
@given(texts=st.lists(st.text(), min_size=5, max_size=5))
def test_any_text_survives_as_a_literal(texts):
    name, op, tensor, reason, model = texts
    text = render_network_script(
        [constraint(name, op, [tensor], [tensor], reason)], precision=FP16, model_name=model
    )

    data = literals(text)
    assert data["MODEL_NAME"] == model
    assert data["CONSTRAINTS"] == [
        {"reason": reason, "name": name, "op": op, "inputs": (tensor,), "outputs": (tensor,)}
    ]
    assert render_network_script([], precision=FP16).partition("CONSTRAINTS")[0].replace(
        "MODEL_NAME = ''", ""
    ) == text.partition("CONSTRAINTS")[0].replace(f"MODEL_NAME = {model!r}", "") or (
        "CONSTRAINTS" in model
    )


def test_saving_replaces_the_file_as_a_whole(tmp_path):
    path = tmp_path / "constraints.py"
    path.write_text("old")

    save_network_script("naïve = 1\n", str(path))

    assert path.read_bytes() == "naïve = 1\n".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["constraints.py"]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        save_network_script("x = 1\n", str(tmp_path / "missing" / "constraints.py"))


@pytest.mark.trt
def test_hostile_names_execute_nothing_and_all_match(tensorrt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = list(HOSTILE_NAMES.values())
    tensors = [f"{name}_tensor" for name in names]
    model = chain(names, tensors=tensors)
    constraints = [
        constraint(node.name, "MatMul", node.input, node.output, reason=node.name)
        for node in model.graph.node
    ]
    text = render_network_script(constraints, precision=FP16, model_name=names[2])
    script = load(text, tmp_path)
    parsed = tensorrt.parse(model)

    script.postprocess(network=parsed.network)

    assert kept_tensors(parsed.network) == set(tensors)
    left = {entry.name for entry in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"constraints_under_test.py"}


@pytest.mark.trt
def test_names_as_long_as_tensorrt_allows_match(tensorrt, tmp_path):
    model = chain(["first", "n" * 4000], tensors=["t0", "t" * 4000])
    node = model.graph.node[1]
    text = render_network_script(
        [constraint(node.name, "MatMul", node.input, node.output)], precision=FP16
    )
    parsed = tensorrt.parse(model)

    load(text, tmp_path).postprocess(network=parsed.network)

    assert kept_tensors(parsed.network) == {"t" * 4000}
    assert tensorrt.build(parsed) is not None


@pytest.mark.trt
@pytest.mark.parametrize("length", [4096, 10_000])
def test_a_model_with_longer_names_is_refused_by_tensorrt_itself(tensorrt, length):
    for model in (chain(["first", "n" * length]), chain(["a", "b"], tensors=["t" * length, "y"])):
        with pytest.raises(AssertionError, match="Invalid Node"):
            tensorrt.parse(model)


@pytest.mark.trt
@pytest.mark.parametrize("renamed", ["", "short"])
def test_a_script_serves_once_names_of_ten_thousand_characters_are_shortened(
    tensorrt, tmp_path, renamed
):
    model = chain(["first", "n" * 10_000])
    node = model.graph.node[1]
    text = render_network_script(
        [constraint(node.name, "MatMul", node.input, node.output)], precision=FP16
    )
    node.name = renamed
    parsed = tensorrt.parse(model)

    load(text, tmp_path).postprocess(network=parsed.network)

    assert literals(text)["CONSTRAINTS"][0]["name"] == "n" * 10_000
    assert kept_tensors(parsed.network) == {"t1"}
    assert tensorrt.build(parsed) is not None


@pytest.mark.trt
def test_the_names_of_long_outputs_are_given_back(tensorrt, tmp_path):
    model = chain(["first"], tensors=["t" * 4094])
    parsed = tensorrt.parse(model)

    load(render_network_script([], precision=FP16), tmp_path).postprocess(network=parsed.network)

    output = parsed.network.get_output(0)
    assert (output.name, output.dtype.name) == ("t" * 4094, "FLOAT")
    assert tensorrt.build(parsed) is not None


@pytest.mark.trt
def test_weights_outlive_the_script_that_converted_them(tensorrt, tmp_path):
    matrix = np.random.default_rng(2).standard_normal((64, 64)).astype(np.float32)
    model = make_model(
        "(float[4,64] x) => (float[4,64] y) { y = MatMul (x, w) }", arrays={"w": matrix}
    )
    parsed = tensorrt.parse(model)
    script = load(render_network_script([], precision=FP16), tmp_path)

    script.postprocess(network=parsed.network)
    del script  # as Polygraphy does
    gc.collect()
    noise = [np.full(matrix.shape, 7.0, np.float16) for _ in range(100)]
    engine = tensorrt.build(parsed)

    assert noise
    halves = matrix.astype(np.float16)
    assert halves.tobytes() in engine or np.ascontiguousarray(halves.T).tobytes() in engine


@pytest.mark.trt
@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_polygraphy_builds_an_engine_with_the_script(tensorrt, constraints_of, name, tmp_path):
    del tensorrt  # skips where there is none
    model = MODELS[name]()
    onnx.save(model, tmp_path / "model.onnx")
    chosen = [Constraint(*c) for c in constraints_of(model)[2:5]]
    save_network_script(
        render_network_script(chosen, precision=FP16), str(tmp_path / "constraints.py")
    )

    done = polygraphy(
        *("convert", "model.onnx", "-o", "model.engine", "--trt-npps", "constraints.py"),
        folder=tmp_path,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 constraints matched (3 by tensor names), 0 unmatched." in done.stdout
    assert (tmp_path / "model.engine").stat().st_size > 0


@pytest.mark.trt
def test_a_script_for_another_model_stops_the_build(tensorrt, tmp_path):
    del tensorrt  # skips where there is none
    onnx.save(MODELS["mlp"](), tmp_path / "model.onnx")
    text = render_network_script([constraint("gone", outputs=["nowhere"])], precision=FP16)
    save_network_script(text, str(tmp_path / "constraints.py"))

    done = polygraphy(
        *("convert", "model.onnx", "-o", "model.engine", "--trt-npps", "constraints.py"),
        folder=tmp_path,
    )

    assert done.returncode != 0
    assert "1 of 1 constraints match no layer" in done.stdout + done.stderr
    assert not (tmp_path / "model.engine").exists()
