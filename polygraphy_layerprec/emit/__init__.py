"""Constraints as artefacts: what TensorRT and other runtimes are given."""
