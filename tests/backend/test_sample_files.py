from __future__ import annotations

import numpy as np
import pytest
from polygraphy.json import save_json

from polygraphy_layerprec.backend.sample_files import read_samples
from polygraphy_layerprec.execution.samples.given import SampleError
from polygraphy_layerprec.model.graph import GraphInput

X = GraphInput("x", np.dtype(np.float32), (1, 2))
Y = GraphInput("y", np.dtype(np.int64), (1,))


def array(value):
    return np.full((1, 2), value, np.float32)


def values_of(path, inputs=(X,)):
    return [float(np.asarray(sample["x"])[0, 0]) for _, sample in read_samples(str(path), inputs)]


def test_a_folder_holds_samples_of_every_kind_ordered_by_name(tmp_path):
    np.savez(tmp_path / "b.npz", x=array(2))
    np.save(tmp_path / "c.npy", array(3))
    save_json([{"x": array(0)}, {"x": array(1)}], str(tmp_path / "a.json"))
    save_json({"x": array(4)}, str(tmp_path / "d.json"))
    (tmp_path / "readme.txt").write_text("not a sample")

    assert values_of(tmp_path) == [0, 1, 2, 3, 4]


def test_an_array_alone_is_the_only_input(tmp_path):
    np.save(tmp_path / "x.npy", array(7))

    ((where, sample),) = read_samples(str(tmp_path / "x.npy"), [X])

    assert where == f"sample {tmp_path / 'x.npy'}"
    np.testing.assert_array_equal(sample["x"], array(7))


def test_an_array_alone_is_no_sample_of_two_inputs(tmp_path):
    np.save(tmp_path / "x.npy", array(7))

    with pytest.raises(SampleError, match=r"has 2 inputs(.|\n)*numpy\.savez\(.*x=\.\.\., y=\.\.\."):
        values_of(tmp_path / "x.npy", [X, Y])


def test_a_folder_without_samples_is_an_error(tmp_path):
    (tmp_path / "readme.txt").write_text("not a sample")

    with pytest.raises(SampleError, match=r"holds no input data(.|\n)*\.json, \.npy, \.npz"):
        values_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04pickled"])
@pytest.mark.parametrize("ending", [".npy", ".npz", ".json"])
def test_a_file_that_is_not_what_its_name_says_is_an_error(tmp_path, ending, content):
    path = tmp_path / f"bad{ending}"
    path.write_bytes(content)

    with pytest.raises(SampleError, match="bad"):
        values_of(path)


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([print], object), allow_pickle=True)

    with pytest.raises(SampleError, match="is not an array"):
        values_of(tmp_path / "x.npy")
