"""Tests of the vector-Jacobian rules."""
