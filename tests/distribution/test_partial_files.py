"""Parts of a ranking on file: they make the whole, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.distribution.merging import check_parts, merge_parts
from polygraphy_layerprec.distribution.part import Part, Shard, conditions_of
from polygraphy_layerprec.distribution.partial_file import open_partial, save_partial
from polygraphy_layerprec.execution.kernels.sessions import threads_per_session
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.observing import Observer, RankRequest
from tests.models import build_model, chain, node, normal, small_transformer, tensor
from tests.split_cases import CASES, assert_equal_rankings, many_samples


def saved_parts(folder, model, samples, count, **changes):
    graph = load_graph(model)
    paths = []
    for number in range(1, count + 1):
        shard = Shard(number, count)
        run = Observer(graph, RankRequest())
        held = [(index, sample) for index, sample in enumerate(samples) if shard.holds(index)]
        conditions = conditions_of(
            graph,
            precision="fp16",
            impact="adjoint",
            outputs=None,
            generated_inputs=False,
            shard_count=count,
            data_set_size=len(samples),
        )
        part = Part(
            shard,
            dataclasses.replace(conditions, **changes),
            run.observe(held, may_be_none=True).comparison,
        )
        paths.append(str(folder / f"part-{number}.npz"))
        save_partial(part, paths[-1], graph)
    return paths


def merged(paths, model):
    return merge_parts([open_partial(path) for path in paths], load_graph(model))


@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize("case", CASES)
def test_parts_make_the_ranking_of_the_whole(tmp_path, case, count):
    model, samples = CASES[case]()

    ranking = merged(saved_parts(tmp_path, model, samples, count)[::-1], model)

    assert_equal_rankings(ranking, rank_model(model, samples))


def test_bf16_and_text_among_the_samples_that_are_kept_come_back(tmp_path):
    # The power of the input leaves the range of FP16, and the difference is a NaN.
    nodes = [
        node("Cast", ["b"], "x", name="/cast", to=TensorProto.FLOAT),
        node("Mul", ["x", "x"], "large", name="/square"),
        node("Sub", ["large", "large"], "nothing", name="/difference"),
        node("Shape", ["text"], "shape", name="/shape"),
        node("Reshape", ["nothing", "shape"], "y", name="/reshape"),
    ]
    inputs = [tensor("b", [4], TensorProto.BFLOAT16), tensor("text", [4], TensorProto.STRING)]
    model = build_model(nodes, inputs, [tensor("y", None)], {})
    wide = next(i.dtype for i in load_graph(model).inputs if i.name == "b")
    sample = {
        "b": np.array([300, 1, 2, 3], np.float32).astype(wide),
        "text": np.array(["a", "bc", "", "d"], object),
    }

    paths = saved_parts(tmp_path, model, [sample], 1)

    kept = open_partial(paths[0]).read(
        Observer(load_graph(model), RankRequest()).comparer().nothing(), load_graph(model)
    )
    (restored,) = kept.lost_samples.values()
    assert restored["b"].dtype == wide
    assert restored["b"].tolist() == sample["b"].tolist()
    assert restored["text"].tolist() == sample["text"].tolist()


def test_the_same_part_gives_the_same_bytes(tmp_path):
    model = small_transformer()
    samples = many_samples(model, 2)
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (path,) = saved_parts(tmp_path / name, model, samples, 1)
        contents.append(Path(path).read_bytes())

    assert contents[0] == contents[1]


def changed(path, **changes):
    """Replaces fields of a part's conditions, of all versions, or whole arrays."""
    arrays = dict(np.load(path))
    content = json.loads(arrays["record"].tobytes())
    for name, value in changes.items():
        if name in arrays:
            arrays[name] = value
        elif name in content:
            content[name] = value
        else:
            content["conditions"][name] = value
    arrays["record"] = np.frombuffer(json.dumps(content).encode(), np.uint8)
    np.savez(path, **arrays)


@pytest.fixture
def parts(tmp_path):
    model = small_transformer()
    return saved_parts(tmp_path, model, many_samples(model, 3), 2)


@pytest.mark.parametrize(
    ("field", "value", "what_to_do"),
    [
        ("threads", 7, "the same `--threads`"),
        ("versions", [["numpy", "1.0"]], "Install the same versions"),
        ("precision", "bf16", "the same options"),
        ("impact", "gain", "the same options"),
        ("outputs", ["x"], "the same options"),
        ("loss", "ab", "the same options"),
        ("inputs", "generated", "the same input data"),
        ("data_set_size", 4, "the same input data"),
    ],
)
def test_parts_that_differ_are_refused_by_name(parts, field, value, what_to_do):
    changed(parts[1], **{field: value})

    with pytest.raises(ValueError, match=f"differ in `{field}`") as told:
        check_parts([open_partial(path) for path in parts])

    assert parts[0] in str(told.value)
    assert parts[1] in str(told.value)
    assert what_to_do in str(told.value)


def test_parts_of_two_models_are_refused(tmp_path, parts):
    (tmp_path / "other").mkdir()
    others = saved_parts(tmp_path / "other", chain(4), many_samples(chain(4), 3), 2)

    with pytest.raises(ValueError, match="differ in `model`"):
        check_parts([open_partial(path) for path in (parts[0], others[1])])


def test_parts_and_another_model_are_refused(parts):
    with pytest.raises(ValueError, match="about another model"):
        merged(parts, chain(4))


def test_parts_of_other_versions_than_those_that_merge_are_refused(parts):
    for path in parts:
        changed(path, versions=[["numpy", "1.0"]])

    with pytest.raises(ValueError, match="this program differ in `versions`"):
        merged(parts, small_transformer())


def test_a_missing_part_is_refused_by_its_number(parts):
    with pytest.raises(ValueError, match=r"1 of 2 parts are missing: 2/2"):
        check_parts([open_partial(parts[0])])


def test_parts_that_overlap_are_refused(parts):
    with pytest.raises(ValueError, match=r"overlap: both are shard 1/2"):
        check_parts([open_partial(path) for path in (*parts, parts[0])])


def test_a_part_of_another_split_is_refused(tmp_path, parts):
    (tmp_path / "thirds").mkdir()
    model = small_transformer()
    thirds = saved_parts(tmp_path / "thirds", model, many_samples(model, 3), 3)

    with pytest.raises(ValueError, match="differ in `shard_count`"):
        check_parts([open_partial(path) for path in (parts[0], thirds[1])])


def test_a_later_version_of_the_file_is_refused(parts):
    changed(parts[0], partial_version=2)

    with pytest.raises(ValueError, match="partial_version is 2, this program reads 1"):
        open_partial(parts[0])


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("nodes", np.array([0, 10**6]), "nodes must be below"),
        ("nodes", np.array([3, 3]), "in order, each once"),
        ("nodes", np.array([0.0]), "nodes must be int64"),
        ("powers", np.full((1, 1), 1.0), "powers must be float64"),
        ("samples", np.array([0, 1]), "does not hold the 2 samples"),
        ("visits", np.array([[3, 0]]), "visit_parents must be"),
        ("reader_shares", np.array([], float), "reader_shares must be"),
        ("evaluations", np.array([-1]), "evaluations must be"),
        ("output0.squared_errors", np.array([-1.0]), "must not be negative"),
    ],
)
def test_arrays_that_cannot_be_are_refused(parts, name, value, problem):
    changed(parts[0], **{name: value})

    with pytest.raises(ValueError, match=problem):
        merged(parts, small_transformer())


def test_a_way_of_infinities_that_leads_back_is_refused(parts):
    changed(parts[0], visits=np.array([[3, 0]]), visit_parents=np.array([3]),
            visit_flags=np.array([1]))  # fmt: skip

    with pytest.raises(ValueError, match="visit_parents leads from the node 3 to 3"):
        merged(parts, small_transformer())


def test_objects_in_a_part_are_not_unpickled(parts):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.array([{}], object), allow_pickle=True)
    with zipfile.ZipFile(parts[0], "a") as archive:
        archive.writestr("more.npy", content.getvalue())

    with pytest.raises(ValueError, match="Python objects, which are not read"):
        open_partial(parts[0])


def test_a_claim_of_endless_samples_takes_no_memory(parts):
    for path in parts:
        changed(path, data_set_size=2**62)

    with pytest.raises(ValueError, match="does not hold the"):
        merged(parts, small_transformer())


def test_the_number_of_threads_of_the_parts_is_that_of_what_is_measured_in_the_end(tmp_path):
    model, samples = CASES["inexact ids"]()
    with threads_per_session(3):
        paths = saved_parts(tmp_path, model, samples, 2)

    assert merged(paths, model).conditions.threads == 3


def test_shards_hold_each_sample_once():
    for count in (1, 2, 5):
        shards = [Shard(number, count) for number in range(1, count + 1)]
        assert all(sum(s.holds(index) for s in shards) == 1 for index in range(12))
        assert sum(s.size_of(12) for s in shards) == 12


@pytest.mark.parametrize(("number", "count"), [(0, 1), (3, 2), (1, 0)])
def test_a_shard_beyond_its_number_is_refused(number, count):
    with pytest.raises(ValueError, match="from 1/N to N/N"):
        Shard(number, count)


def test_models_from_files_and_from_memory_are_the_same(tmp_path, parts):
    onnx.save(small_transformer(), tmp_path / "again.onnx")

    assert merged(parts, str(tmp_path / "again.onnx")).layers


def test_weights_are_part_of_the_model(parts):
    other = small_transformer()
    weight = other.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(normal(99, *weight.dims), weight.name))

    with pytest.raises(ValueError, match="about another model"):
        merged(parts, other)
