"""Arrays in files: what numpy wrote is read, and nothing is unpacked that claims something else."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.files.npz_file import NpzFile, open_npy

ARRAYS = {
    "scalar": np.array(2.5, np.float32),
    "empty": np.empty((0, 3), np.int64),
    "turned": np.arange(12, dtype=np.float64).reshape(3, 4).T,
    "text": np.array(["a", "層"]),
    "swapped": np.arange(3, dtype=">i4"),
    "a/b.c": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_wrote_is_read_bit_by_bit(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)

    found = NpzFile(str(tmp_path / "a.npz"))

    assert list(found) == list(ARRAYS)
    assert len(found) == len(ARRAYS)
    for name, values in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
        np.testing.assert_array_equal(np.asarray(found[name]), values, strict=True)
        assert np.asarray(found[name], np.dtype(object)).dtype == object


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        NpzFile(str(tmp_path / "none.npz"))


def test_a_file_that_changed_since_its_headers_were_read_is_told(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(3))
    found = NpzFile(str(path))
    path.write_bytes(b"something else")

    with pytest.raises(ValueError, match="is not a file of arrays: File is not a zip file"):
        np.asarray(found["x"])


def test_an_array_with_fields_is_none(tmp_path):
    with pytest.warns(UserWarning, match="format 3.0"):
        np.savez(tmp_path / "a.npz", x=np.zeros(2, [("層", "<f4")]))

    with pytest.raises(ValueError, match="which has fields"):
        NpzFile(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_alone_is_read_bit_by_bit(tmp_path, name):
    np.save(tmp_path / "a.npy", ARRAYS[name])

    found = open_npy(str(tmp_path / "a.npy"))

    assert (found.dtype, found.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
    np.testing.assert_array_equal(np.asarray(found), ARRAYS[name], strict=True)


def test_an_array_alone_that_claims_more_than_it_has_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(8))

    with pytest.raises(ValueError, match=r"a\.npy' is not an array: .*, but has"):
        open_npy(str(path))
