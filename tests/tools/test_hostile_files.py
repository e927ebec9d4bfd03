"""Files made to do harm: a clear error, exit code 1, no traceback, bounded time and memory."""

from __future__ import annotations

import base64
import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.tools.main import main
from tests.models import chain
from tests.rankings import make_layer, make_ranking

pytestmark = pytest.mark.onnxrt

NESTED = "[" * 200_000
HUGE = 10**400
TYPE = "polygraphy_class"


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs a command, expects it to fail cleanly, and returns what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        status = main([*words])
        captured = capsys.readouterr()
        assert status == 1, captured.out
        assert "Traceback" not in captured.out + captured.err
        assert captured.err.startswith("[!] ")
        return " ".join(captured.err.split())

    return run


def save_model(folder, extents, dtype=TensorProto.FLOAT):
    """Saves a model whose input has these extents."""
    x, y = (helper.make_tensor_value_info(name, dtype, extents) for name in "xy")
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"], name="exp")], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")


def tampered(folder, *path, value):
    """Saves a ranking with one value replaced."""
    save_ranking(make_ranking(make_layer(1, "a"), make_layer(2, "b")), folder / "ranking.json")
    content = json.loads((folder / "ranking.json").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "ranking.json").write_text(json.dumps(content))


@pytest.mark.parametrize("extents", [[2**62], [2**40, 2**40], [1, 2**33, 2**20]])
def test_inputs_larger_than_the_machine_are_not_made_up(refused, tmp_path, extents):
    save_model(tmp_path, extents)

    said = refused("rank", "model.onnx")

    assert "The input 'x' is too large" in said
    assert "--input-shapes" in said


def test_shapes_that_the_user_asks_for_are_bounded_as_well(refused, tmp_path):
    save_model(tmp_path, ["n"])

    assert "too large" in refused("rank", "model.onnx", "--input-shapes", f"x:[{2**45}]")


@pytest.mark.parametrize("verb", ["inspect", "constrain", "compare"])
def test_brackets_without_end_are_no_ranking(refused, tmp_path, verb):
    (tmp_path / "ranking.json").write_text(NESTED)
    files = ["ranking.json"] * (1 + (verb == "compare"))

    said = refused(verb, *files)

    assert "'ranking.json' is not a ranking that can be read" in said
    assert "nested too deeply" in said


@pytest.mark.parametrize("option", ["--load-inputs", "--load-outputs"])
def test_brackets_without_end_are_no_arrays(refused, tmp_path, option):
    save_model(tmp_path, [2])
    (tmp_path / "deep.json").write_text(NESTED)

    said = refused("rank", "model.onnx", option, "deep.json")

    assert "'deep.json'" in said
    assert "nested too deeply" in said


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("layers", 0, "rank"), HUGE),
        (("layers", 0, "graph_index"), -HUGE),
        (("layers", 0, "element_count"), 2**63),
        (("layers", 0, "impact"), HUGE),
        (("output_error", "measured"), HUGE),
        (("stability"), HUGE),
        (("conditions", "sample_count"), HUGE),
    ],
)
def test_numbers_that_no_array_holds_are_refused_by_name(refused, tmp_path, path, value):
    path = path if isinstance(path, tuple) else (path,)
    tampered(tmp_path, *path, value=value)

    said = refused("inspect", "ranking.json")

    assert str(path[-1]) in said
    assert "in magnitude" in said


@pytest.mark.parametrize("verb", ["inspect", "constrain", "report"])
def test_a_precision_of_a_later_version_is_told(refused, tmp_path, verb):
    tampered(tmp_path, "precision", value="fp4")

    words = [verb, "ranking.json", *(["-o", "report.md"] if verb == "report" else [])]

    assert "its precision is 'fp4', this program knows fp16, bf16" in refused(*words)


def write_npz(path, header_shape, content_bytes, *, dtype="<f4", name="x.npy"):
    """Writes an array that claims one shape, and holds any number of zeros."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype, "fortran_order": False, "shape": header_shape}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as file,
    ):
        file.write(header.getvalue())
        chunk = bytes(1 << 20)
        for start in range(0, content_bytes, len(chunk)):
            file.write(chunk[: min(len(chunk), content_bytes - start)])


BOMB_BYTES = 1 << 28


@pytest.mark.parametrize(
    ("extents", "claimed", "content_bytes", "reason"),
    [
        ([2], (BOMB_BYTES // 4,), BOMB_BYTES, "Wrong shape of input 'x'"),
        ([2], (2,), BOMB_BYTES, "has 268435584 bytes"),
        (["n"], (2**40,), 8, "but has"),
        (["n"], (2**62, 2**62), 8, "but has"),
        (["n"], (-(2**40),), 8, "not a file of arrays"),
    ],
)
def test_a_bomb_is_not_unpacked(refused, tmp_path, extents, claimed, content_bytes, reason):
    save_model(tmp_path, extents)
    write_npz(tmp_path / "bomb.npz", claimed, content_bytes)

    tracemalloc.start()
    said = refused("rank", "model.onnx", "--load-inputs", "bomb.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert reason in said
    assert "bomb.npz" in said
    assert peak < BOMB_BYTES / 4


@pytest.mark.parametrize("extent", [2**40, 2**62, -(2**40)])
def test_an_array_alone_is_as_large_as_it_says(refused, tmp_path, extent):
    save_model(tmp_path, ["n"])
    with (tmp_path / "bomb.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (extent,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(8))

    said = refused("rank", "model.onnx", "--load-inputs", "bomb.npy")

    assert "'bomb.npy' is not an array" in said


def test_inputs_that_fit_one_by_one_alone_are_not_made_up(refused, tmp_path):
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    x, y, z = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [half // 12]) for n in "xyz")
    add = helper.make_node("Add", ["x", "y"], ["z"], name="add")
    graph = helper.make_graph([add], "g", [x, y], [z])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")

    assert "too large" in refused("rank", "model.onnx")


def test_a_header_without_end_is_not_unpacked(refused, tmp_path):
    save_model(tmp_path, [2])
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        magic = np.lib.format.magic(2, 0) + (1 << 28).to_bytes(4, "little")
        archive.writestr("x.npy", magic + b" " * (1 << 28))

    tracemalloc.start()
    said = refused("rank", "model.onnx", "--load-inputs", "bomb.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert "not a file of arrays" in said
    assert peak < 1 << 26


def test_an_array_packed_in_json_is_not_unpacked_either(refused, tmp_path):
    save_model(tmp_path, [2])
    write_npz(tmp_path / "bomb.npz", (1 << 27,), 1 << 29)
    packed = base64.b64encode((tmp_path / "bomb.npz").read_bytes()).decode()
    array = {"array": packed, TYPE: "ndarray"}
    (tmp_path / "inputs.json").write_text(json.dumps([{"x": array}]))

    tracemalloc.start()
    said = refused("rank", "model.onnx", "--load-inputs", "inputs.json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert "a packed array has 536871040 bytes" in said
    assert peak < 1 << 27


@pytest.mark.parametrize("ending", ["npz", "npy"])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.STRING])
def test_arrays_of_objects_are_never_unpickled(refused, tmp_path, ending, dtype):
    save_model(tmp_path, [2], dtype)
    save = np.savez if ending == "npz" else np.save
    save(tmp_path / f"objects.{ending}", np.array([{}, print], object))

    said = refused("rank", "model.onnx", "--load-inputs", f"objects.{ending}")

    assert f"'objects.{ending}' is not" in said
    assert "holds Python objects" in said


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"text"])
def test_what_is_no_archive_of_arrays_is_refused(refused, tmp_path, content):
    save_model(tmp_path, [2])
    (tmp_path / "inputs.npz").write_bytes(content)

    assert "inputs.npz" in refused("rank", "model.onnx", "--load-inputs", "inputs.npz")


@pytest.mark.parametrize(
    "content",
    [
        {TYPE: "Nothing that is known"},
        {TYPE: "ndarray"},
        {TYPE: "ndarray", "array": 7},
        {TYPE: "ndarray", "array": "????"},
        {TYPE: ["not", "text"]},
        {TYPE: "RunResults", "lst": 7},
        [1, 2, 3],
        7,
    ],
)
@pytest.mark.parametrize("option", ["--load-inputs", "--load-outputs"])
def test_json_of_another_kind_is_told_by_file(refused, tmp_path, option, content):
    save_model(tmp_path, [2])
    (tmp_path / "other.json").write_text(json.dumps(content))

    assert "other.json" in refused("rank", "model.onnx", option, "other.json")


def test_a_long_list_of_names_is_cut(refused, tmp_path):
    onnx.save(chain(2), tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **{f"array{i}": np.zeros(1) for i in range(500)})

    said = refused("rank", "model.onnx", "--load-inputs", "inputs.npz")

    assert "and 480 more" in said
    assert len(said) < 2000
