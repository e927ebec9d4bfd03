"""The proof that low precision is emulated: passes here, and fails on what is not faithful."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution import EmulationError, check_emulation
from polygraphy_layerprec.execution.emulation import canary
from polygraphy_layerprec.execution.emulation.canary import check_runtime_version
from polygraphy_layerprec.rounding import ChunkRounder


def test_this_onnxruntime_is_faithful():
    check_emulation()
    assert canary._cancellation_error() == pytest.approx(1.0)


@pytest.mark.parametrize("version", ["1.16.3", "1.9.0", "0.99"])
def test_an_old_onnxruntime_is_refused(version):
    with pytest.raises(EmulationError, match=f"{version} is too old"):
        check_runtime_version(version)


@pytest.mark.parametrize("version", ["1.17.0", "1.32.1", "2.0.0.dev1"])
def test_a_newer_one_is_taken(version):
    assert check_runtime_version(version) is None


def test_casts_that_were_optimised_away_are_noticed(monkeypatch):
    monkeypatch.setattr(canary, "_cast_pair", lambda values: values)
    with pytest.raises(EmulationError, match=r"casting .* to FP16 and back"):
        check_emulation()


def test_rounding_that_does_nothing_is_noticed(monkeypatch):
    def copy(_self, source, target, **_options):
        target[:] = source
        return float(np.abs(source).max())

    monkeypatch.setattr(ChunkRounder, "round", copy)
    with pytest.raises(EmulationError, match="instead of 100 %"):
        check_emulation()
