"""Results of `polygraphy run`, made with Polygraphy's own classes, compared in every layout."""

from __future__ import annotations

import json
from collections import OrderedDict

import numpy as np
import pytest
from polygraphy import config
from polygraphy.comparator import IterationResult, RunResults
from polygraphy.json import save_json

from polygraphy_layerprec.backend import saved_results
from polygraphy_layerprec.backend.saved_results import compare_saved_results
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.precision import FP16

REFERENCE = [{"y": np.float32([1, 2]), "n": np.arange(3)}, {"y": np.float32([3, 4])}]
CANDIDATE = [{"y": np.float32([1, 2]), "n": np.arange(3)}, {"y": np.float32([3, 4.5])}]
ERROR = np.sqrt(0.25 / 30)

RESULTS_OF_ARRAY = (
    '{"polygraphy_class": "RunResults", "lst": [["a", [{"polygraphy_class": "IterationResult", '
    '"runtime": 0.1, "runner_name": "a", "outputs": {"y": {"polygraphy_class": "LazyArray", '
    '"values": {"polygraphy_class": "ndarray", "array": %s}}}}]]]}'
)
"""Results as Polygraphy saves them, with an array that it cannot read."""


@pytest.fixture
def save(tmp_path):
    """Saves iterations by runner, as one file or as a directory of iterations."""

    def write(name, **runners):
        path = tmp_path / name
        if path.suffix:
            _results(runners).save(str(path))
            return str(path)
        path.mkdir()
        for index in range(max(map(len, runners.values()))):
            single = {runner: its[index : index + 1] for runner, its in runners.items()}
            single = {runner: iterations for runner, iterations in single.items() if iterations}
            _results(single).save(str(path / f"{index:010d}.json"))
        return str(path)

    return write


def _results(runners):
    results = RunResults()
    for name, iterations in runners.items():
        results.append((name, [IterationResult(outputs, 0.1, name) for outputs in iterations]))
    return results


@pytest.mark.parametrize(
    "layouts", [("a.json", "b.json"), ("a", "b"), ("a.json", "b"), ("a", "b.x")]
)
def test_files_and_directories_give_the_same(save, layouts):
    paths = [
        save(layouts[0], fp32=REFERENCE),
        save(layouts[1], fp16=CANDIDATE),
    ]

    found = compare_saved_results(paths, FP16)

    assert (found.reference, found.candidate, found.unused) == ("fp32", "fp16", ())
    assert found.tensors.names == ("y", "n")
    assert found.tensors.sample_count == 2
    assert found.tensors["y"].cumulative_error == pytest.approx(ERROR)
    assert found.tensors["n"].mismatch_count == 0


@pytest.mark.parametrize("layout", ["both.json", "both"])
def test_one_place_may_hold_both(save, layout):
    path = save(layout, fp32=REFERENCE, fp16=CANDIDATE)

    found = compare_saved_results([path], FP16)

    assert (found.reference, found.candidate) == ("fp32", "fp16")
    assert found.tensors["y"].cumulative_error == pytest.approx(ERROR)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("onnxrt-N0", "trt-N0", ("trt-N1",))),
        ({"candidate_runner": "trt-N1"}, ("onnxrt-N0", "trt-N1", ("trt-N0",))),
        ({"candidate_runner": "N1"}, ("onnxrt-N0", "trt-N1", ("trt-N0",))),
        ({"reference_runner": "trt-N0"}, ("trt-N0", "onnxrt-N0", ("trt-N1",))),
        ({"candidate_runner": "onnxrt"}, ("trt-N0", "onnxrt-N0", ("trt-N1",))),
        (
            {"reference_runner": "trt-N1", "candidate_runner": "trt-N0"},
            ("trt-N1", "trt-N0", ("onnxrt-N0",)),
        ),
    ],
)
def test_runners_are_chosen_by_order_or_by_a_part_of_their_names(save, options, expected):
    path = save("all.json", **{"onnxrt-N0": REFERENCE, "trt-N0": CANDIDATE, "trt-N1": CANDIDATE})

    found = compare_saved_results([path], FP16, **options)

    assert (found.reference, found.candidate, found.unused) == expected


def test_a_whole_name_goes_before_a_part_of_one(save):
    path = save("all.json", trt=REFERENCE, trt_fp16=CANDIDATE)

    found = compare_saved_results([path], FP16, candidate_runner="trt")

    assert (found.reference, found.candidate) == ("trt_fp16", "trt")


def test_the_same_runner_of_two_files_is_chosen_in_each(save):
    paths = [
        save("a.json", trt=REFERENCE, other=CANDIDATE),
        save("b.json", other=REFERENCE, trt=CANDIDATE),
    ]

    found = compare_saved_results(paths, FP16, candidate_runner="trt")

    assert (found.reference, found.candidate, found.unused) == ("trt", "trt", ("other",))
    assert found.tensors["y"].cumulative_error == pytest.approx(ERROR)


def test_runners_of_one_name_are_told_apart_by_their_order(tmp_path):
    results = RunResults()
    for iterations in (REFERENCE, CANDIDATE):
        results.append(("same", [IterationResult(outputs) for outputs in iterations]))
    results.save(str(tmp_path / "a.json"))

    found = compare_saved_results([str(tmp_path / "a.json")], FP16)

    assert found.tensors["y"].cumulative_error == pytest.approx(ERROR)


@pytest.mark.parametrize(
    ("runners", "options", "message"),
    [
        ({"a": REFERENCE}, {}, "--candidate-runner"),
        ({"a": REFERENCE, "b": CANDIDATE}, {"reference_runner": "z"}, "asks for 'z'"),
        ({"ab": REFERENCE, "bb": CANDIDATE}, {"candidate_runner": "b"}, "'ab', 'bb'"),
    ],
)
def test_a_runner_that_is_not_there_is_told_with_those_that_are(save, runners, options, message):
    path = save("both.json", **runners)

    with pytest.raises(ExecutionError, match=message):
        compare_saved_results([path], FP16, **options)


@pytest.mark.parametrize("layouts", [("a.json", "b.json"), ("a", "b")])
def test_different_numbers_of_iterations_are_told(save, layouts):
    paths = [save(layouts[0], fp32=REFERENCE), save(layouts[1], fp16=CANDIDATE[:1])]

    with pytest.raises(ExecutionError, match="'fp32' has 2 iterations, 'fp16' has 1"):
        compare_saved_results(paths, FP16)


@pytest.mark.parametrize("layout", ["both.json", "both"])
def test_a_runner_that_ended_early_is_told(save, layout):
    path = save(layout, fp32=REFERENCE, fp16=CANDIDATE[:1])

    with pytest.raises(ExecutionError, match="'fp32' has 2 iterations, 'fp16' has 1"):
        compare_saved_results([path], FP16)


def test_of_two_files_a_runner_of_another_name_is_the_candidate(save):
    paths = [
        save("a.json", onnxrt=REFERENCE),
        save("b.json", onnxrt=REFERENCE, trt=CANDIDATE),
    ]

    found = compare_saved_results(paths, FP16)

    assert (found.reference, found.candidate, found.unused) == ("onnxrt", "trt", ())
    assert found.tensors["y"].cumulative_error == pytest.approx(ERROR)


def test_runners_of_later_iterations_are_not_left_out_in_silence(save, tmp_path):
    path = save("both", fp32=REFERENCE, fp16=CANDIDATE)
    _results({"late": REFERENCE}).save(str(tmp_path / "both" / "9.json"))

    assert compare_saved_results([path], FP16).unused == ("late",)


def test_no_tensor_in_common_is_told(save):
    paths = [save("a.json", a=[{"y": np.ones(1)}]), save("b.json", b=[{"z": np.ones(1)}])]

    with pytest.raises(ExecutionError, match="no tensor in common") as caught:
        compare_saved_results(paths, FP16)

    assert "'y'" in str(caught.value)
    assert "'z'" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "text",
        "[1, 2]",
        "{}",
        "[" * 100_000,
        RESULTS_OF_ARRAY % '""',
        RESULTS_OF_ARRAY % "null",
        json.dumps({"polygraphy_class": "RunResults", "lst": []}),
        json.dumps({"polygraphy_class": "RunResults", "lst": [["a", []]]}),
        json.dumps({"polygraphy_class": "RunResults", "lst": [["a", [1]]]}),
        json.dumps({"polygraphy_class": "RunResults", "lst": [["a", 1]]}),
        json.dumps({"polygraphy_class": "RunResults", "lst": [["a"]]}),
        json.dumps({"polygraphy_class": "RunResults"}),
    ],
)
def test_what_holds_no_results_is_told(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)

    with pytest.raises(ExecutionError, match="holds no results") as caught:
        compare_saved_results([str(path)], FP16)

    assert "a.json" in str(caught.value)


def test_inputs_are_no_results(tmp_path):
    path = tmp_path / "inputs.json"
    save_json([OrderedDict(x=np.ones(2))], str(path))

    with pytest.raises(ExecutionError, match=r"holds no results of runners: .* read as `list`"):
        compare_saved_results([str(path)], FP16)


def test_a_binary_file_and_an_empty_directory_are_no_results(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\x93NUMPY\xff\xfe")
    (tmp_path / "empty").mkdir()

    for name in ("a.json", "empty"):
        with pytest.raises(ExecutionError, match="holds no results"):
            compare_saved_results([str(tmp_path / name)], FP16)


def test_what_is_no_tensor_on_one_side_is_counted(save):
    reference = [{"y": np.ones(2, np.float32), "only": np.ones(2), "s": [np.ones(2)]}]
    candidate = [{"y": np.ones(2, np.float32), "s": [np.ones(2)]}]
    paths = [save("a.json", a=reference), save("b.json", b=candidate)]

    tensors = compare_saved_results(paths, FP16).tensors

    assert tensors["y"].absent_count == 0
    assert tensors["only"].absent_count == 1
    assert tensors["s"].absent_count == 1


def test_other_files_of_a_directory_are_left_alone(save, tmp_path):
    path = save("both", fp32=REFERENCE, fp16=CANDIDATE)
    (tmp_path / "both" / "notes.txt").write_text("of the user")

    assert compare_saved_results([path], FP16).tensors.sample_count == 2


def test_iterations_of_a_directory_are_read_one_at_a_time(save, monkeypatch):
    paths = [save("a", fp32=REFERENCE * 5), save("b", fp16=CANDIDATE * 5)]
    read, compared = [], []
    load, add = saved_results.read_polygraphy_json, saved_results._add_iteration
    monkeypatch.setattr(
        saved_results,
        "read_polygraphy_json",
        lambda path: (read.append(path), load(path))[1],
    )
    monkeypatch.setattr(
        saved_results,
        "_add_iteration",
        lambda *results: (compared.append(len(read)), add(*results))[1],
    )

    compare_saved_results(paths, FP16)

    assert compared == [2 * (index + 1) for index in range(10)]


def test_arrays_that_polygraphy_keeps_on_disk_are_compared(save, monkeypatch):
    monkeypatch.setattr(config, "ARRAY_SWAP_THRESHOLD_MB", 0)
    large = np.ones(1 << 19, np.float32)
    path = save("both.json", fp32=[{"y": large}], fp16=[{"y": 1.5 * large}])

    assert compare_saved_results([path], FP16).tensors["y"].cumulative_error == 0.5


class NarrowTensor:
    """Stands for a tensor of PyTorch's in a type that numpy does not have."""

    def numpy(self, *, force):
        assert force
        raise TypeError("Got unsupported ScalarType BFloat16")

    def float(self):
        return WideTensor()


class WideTensor:
    def numpy(self, *, force):
        assert force
        return np.float32([1, 2])


@pytest.mark.parametrize("value", [NarrowTensor(), WideTensor()])
def test_tensors_of_pytorch_become_arrays(value):
    np.testing.assert_array_equal(saved_results._tensor_of({"y": value}, "y"), [1, 2])


def test_progress_is_told_after_every_iteration(save):
    path = save("both.json", fp32=REFERENCE, fp16=CANDIDATE)
    told = []

    compare_saved_results([path], FP16, progress=lambda *what: told.append(what))

    assert told == [(1, 0, "saved iterations"), (2, 0, "saved iterations")]
