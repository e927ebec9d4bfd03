"""What users bring: trained models from packages on PyPI, through every verb.

Usage: POLYGRAPHY_USE_TENSORRT_RTX=1 python benchmarks/real_models.py [--output F.md]

The packages are downloaded at run time; nothing of them is part of the repository. Each verb is a
process of its own, as a user runs it. The FP16 that the emulation is compared with shares no code
with it: pairs of casts behind every float tensor of the plain model, run by ONNX-Runtime with its
optimisations off.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.real_runs import ModelRuns, Outcome
from benchmarks.real_samples import byte_sample, id_sample, picture_sample
from polygraphy_layerprec.backend.tensorrt_module import load_tensorrt

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["REAL_MODELS", "RealModel", "extract", "main"]


@dataclass(frozen=True, slots=True)
class RealModel:
    """One model of a package."""

    title: str
    """What the table calls it."""

    package: str
    """Name and version on PyPI."""

    file: str
    """How the path of the model in the package ends."""

    sample: Callable[[], dict[str, npt.NDArray[Any]]]
    """Returns one array for each input."""


REAL_MODELS: Final = (
    RealModel("magika", "magika==1.0.3", "standard_v3_3/model.onnx", lambda: byte_sample("bytes")),
    RealModel(
        "text2tashkeel, int8",
        "text2tashkeel==0.1.0",
        "/rawi_v3.int8.onnx",
        lambda: id_sample("input", length=96, largest=40),
    ),
    RealModel(
        "PP-OCR angle classifier",
        "rapidocr==3.10.0",
        "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        # Both sides are called `?`, which TensorRT takes for one symbol: it builds squares alone.
        lambda: picture_sample("x", (1, 3, 192, 192), low=-1.0),
    ),
    RealModel(
        "PP-OCRv6 recogniser",
        "rapidocr==3.10.0",
        "PP-OCRv6_rec_small.onnx",
        lambda: picture_sample("x", (1, 3, 48, 320), low=-1.0),
    ),
    RealModel(
        "PP-OCRv6 detector",
        "rapidocr==3.10.0",
        "PP-OCRv6_det_small.onnx",
        lambda: picture_sample("x", (1, 3, 320, 320), low=-2.1, high=2.6),
    ),
    RealModel(
        "ddddocr detector",
        "ddddocr==1.6.1",
        "common_det.onnx",
        lambda: picture_sample("images", (1, 3, 416, 416), high=255.0),
    ),
    RealModel(
        "NudeNet 320n",
        "nudenet==3.4.2",
        "320n.onnx",
        lambda: picture_sample("images", (1, 3, 320, 320)),
    ),
)
"""The models, the quickest first."""

_COLUMNS: Final[Sequence[tuple[str, Callable[[ModelRuns], Outcome]]]] = (
    ("alone", ModelRuns.rank_alone),
    ("with data", ModelRuns.rank_with_data),
    ("engine", ModelRuns.build_engine),
    ("mixed model", ModelRuns.run_mixed),
    ("verify", ModelRuns.verify),
    ("FP16: emulated / cast pairs", ModelRuns.compare_with_cast_pairs),
    ("Spearman to exact", ModelRuns.correlate_with_exact),
)


def main() -> None:
    """Runs every model through every verb, and prints the table."""
    arguments = _parse()
    with tempfile.TemporaryDirectory() as temporary:
        packages = arguments.packages or Path(temporary) / "packages"
        rows = [
            _row(model, packages, Path(temporary), arguments.timeout)
            for model in REAL_MODELS
            if not arguments.models or any(word in model.title for word in arguments.models)
        ]
    titles = [title for title, _ in _COLUMNS]
    lines = [
        f"Measured by `benchmarks/real_models.py` in one run: {_machine()}.",
        "",
        f"| model | layers | {' | '.join(titles)} |",
        f"|---|---|{'---|' * len(titles)}",
        *rows,
    ]
    text = "\n".join([*lines, ""])
    print(text)
    if arguments.output:
        _replace_table(arguments.output, text)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run real models through every verb.")
    parser.add_argument("--models", nargs="*", help="Parts of their titles; all by default.")
    parser.add_argument("--packages", type=Path, help="Where the packages are, or are to be kept.")
    parser.add_argument("--timeout", type=float, default=900.0, help="Seconds for each process.")
    parser.add_argument(
        "--output", type=Path, help="Markdown file whose table is replaced, or that is written."
    )
    return parser.parse_args()


def _row(model: RealModel, packages: Path, folder: Path, timeout_seconds: float) -> str:
    own = folder / model.title.replace(" ", "_")
    own.mkdir()
    path = extract(model, packages, own)
    np.savez(own / "sample.npz", **model.sample())  # type: ignore[arg-type]
    runs = ModelRuns(path, own, timeout_seconds=timeout_seconds)
    cells = []
    for title, run in _COLUMNS:
        print(f"{model.title}: {title} ...", file=sys.stderr, flush=True)
        outcome = run(runs)
        print(f"    {outcome.text} {outcome.problem}", file=sys.stderr, flush=True)
        cells.append(outcome.text)
    return f"| {model.title} | {runs.layer_count or '-'} | {' | '.join(cells)} |"


def extract(model: RealModel, packages: Path, folder: Path) -> Path:
    """Downloads the package unless it is there, and returns the path of the model taken from it."""
    name, version = model.package.split("==")
    if not list(packages.glob(f"{name}-{version}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", str(packages), model.package], check=True)
    (wheel,) = packages.glob(f"{name}-{version}-*.whl")
    path = folder / "model.onnx"
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(model.file))
        path.write_bytes(archive.read(member))
    return path


def _replace_table(page: Path, text: str) -> None:
    """Writes the table into the page in place of the one that is there, prose being kept."""
    start = text.split("`", 1)[0]
    before = page.read_text(encoding="utf-8").split(start)[0] if page.exists() else ""
    page.write_text(before + text, encoding="utf-8")


def _machine() -> str:
    packages = ("onnxruntime", "onnx", "numpy", "polygraphy")
    versions = [f"{name} {metadata.version(name)}" for name in packages]
    tensorrt = load_tensorrt()
    versions.append(f"{tensorrt.__name__} {tensorrt.__version__}")
    return f"{platform.machine()}, Python {platform.python_version()}, {', '.join(versions)}"


if __name__ == "__main__":
    main()
