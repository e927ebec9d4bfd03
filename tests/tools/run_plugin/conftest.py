"""`polygraphy run` in this process, in a folder with models and what keeps layers in FP32."""

from __future__ import annotations

import argparse

import numpy as np
import onnx
import pytest
from polygraphy.exception import PolygraphyException
from polygraphy.json import save_json
from polygraphy.tools.run import Run

from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.precision import BF16
from tests.models import cancellation, integer_output, overflow_then_recovery
from tests.run_plugin_files import DATA_SCRIPT, OFFSET, SMALL, loaded, script_of


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns a folder with models, inputs, and what keeps layers in FP32."""
    folder = tmp_path_factory.mktemp("run")
    onnx.save(cancellation(OFFSET), folder / "model.onnx")
    onnx.save(overflow_then_recovery(), folder / "overflow.onnx")
    onnx.save(integer_output(), folder / "labels.onnx")
    save_json([{"x": SMALL}], str(folder / "inputs.json"))
    save_json([{"x": np.full((4, 8), 1.5, np.float32)}], str(folder / "large.json"))
    (folder / "data.py").write_text(DATA_SCRIPT)
    (folder / "cancelling.py").write_text(script_of("shifted", "restored"))
    (folder / "all.py").write_text(script_of("shifted", "restored", "y"))
    (folder / "foreign.py").write_text(script_of("y", model_digest="2:" + "cd" * 32))
    (folder / "stray.py").write_text(script_of("shifty"))
    (folder / "bf16.py").write_text(script_of("y", precision=BF16))
    save_ranking(rank_model(cancellation(OFFSET), [{"x": SMALL}]), folder / "ranking.json")
    return folder


@pytest.fixture
def run(files, monkeypatch):
    """Runs `polygraphy run` in this process and returns whether the comparison passed."""
    monkeypatch.chdir(files)

    def run(*words: str) -> bool:
        tool = Run()
        parser = argparse.ArgumentParser()
        tool.setup_parser(parser.add_subparsers())
        args = parser.parse_args(["run", *words])
        try:
            tool.parse(args)
            tool.run(args)
        except PolygraphyException as error:
            if str(error).startswith(("FAILED", "Output validation failed")):
                return False
            raise
        finally:
            if args.gen_script is not None:
                args.gen_script.close()  # Polygraphy leaves it open
        return True

    return run


@pytest.fixture
def outputs(run, tmp_path):
    """Runs, and returns the saved outputs of each runner and iteration."""

    def outputs(*words: str, inputs: str = "inputs.json") -> dict[str, list[dict]]:
        path = tmp_path / "outputs.json"
        path.unlink(missing_ok=True)
        run(*words, "--load-inputs", inputs, "--save-outputs", str(path))
        return loaded(path)

    return outputs


@pytest.fixture
def generate(run, tmp_path):
    """Returns the script that `polygraphy run` generates."""

    def generate(*words: str) -> str:
        run(*words, "--gen-script", str(tmp_path / "generated.py"))
        return (tmp_path / "generated.py").read_text()

    return generate
