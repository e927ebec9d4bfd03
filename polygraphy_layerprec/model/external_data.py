"""Where the data of a model may lie: one check for all that read them.

A model is hostile input: its data may not be read from anywhere on the machine, neither by a
location that climbs out of the folder nor by a link that does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from polygraphy_layerprec.model.errors import ModelError

__all__ = ["DataFolder", "data_folder_of"]


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The folder that a model's data files are in."""

    path: str
    """The folder as it was named."""

    model_path: str | None = None
    """The model file, where the data belong beside it. What it links to may have the data beside
    it as well: caches keep a model and its data in one folder of blobs, and link to both."""

    def data_path(self, location: str, tensor_name: str) -> str:
        """Returns the path of a data file that is there.

        Args:
            location: Path relative to the folder, as it stands in the model.
            tensor_name: The tensor that wants it, for messages.

        Raises:
            ModelError: If it is missing, or lies elsewhere once every link is followed.
        """
        inside = os.path.normpath(location)
        climbs = os.path.isabs(inside) or inside.split(os.sep)[0] == os.pardir
        if not location or "\0" in location or climbs:
            raise ModelError(
                f"Tensor {tensor_name!r} refers to data outside the model's folder: {location!r}.\n"
                f"Put the data file beside the model and export it with a relative location."
            )
        path = os.path.join(self.path, inside)
        if not os.path.isfile(path):
            raise ModelError(
                f"The external data of the model is missing: no file {path!r}.\n"
                f"Note: Tensor {tensor_name!r} is stored there.\n"
                f"Put the file beside the model, or name its folder with `--external-data-dir`."
            )
        self._check_target(path, tensor_name)
        return path

    def _check_target(self, path: str, tensor_name: str) -> None:
        target = os.path.realpath(path)
        folders = [os.path.realpath(self.path)]
        if self.model_path is not None:
            folders.append(os.path.dirname(os.path.realpath(self.model_path)))
        if not any(os.path.commonpath([folder, target]) == folder for folder in folders):
            raise ModelError(
                f"Tensor {tensor_name!r} refers to data outside the model's folder: {path!r} links "
                f"to {target!r}.\n"
                f"Put the file itself beside the model, or name its folder with "
                f"`--external-data-dir`."
            )


def data_folder_of(model_path: str, external_data_folder: str | None) -> DataFolder:
    """Returns where a model's data are: in a folder that was named, or beside the model."""
    if external_data_folder is not None:
        return DataFolder(external_data_folder)
    return DataFolder(os.path.dirname(os.path.abspath(model_path)), model_path)
