"""A runner for emulated low precision, and the loaders that make what it runs."""

from polygraphy_layerprec.backend.emulated.candidate import Candidate
from polygraphy_layerprec.backend.emulated.inputs import InputsFromFiles, PlausibleInputs
from polygraphy_layerprec.backend.emulated.loader import (
    CandidateFromGraph,
    GraphFromOnnx,
    PrecisionsFromRanking,
    PrecisionsFromScript,
)
from polygraphy_layerprec.backend.emulated.runner import LayerprecRunner

__all__ = [
    "Candidate",
    "CandidateFromGraph",
    "GraphFromOnnx",
    "InputsFromFiles",
    "LayerprecRunner",
    "PlausibleInputs",
    "PrecisionsFromRanking",
    "PrecisionsFromScript",
]
