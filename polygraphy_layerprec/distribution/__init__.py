"""Samples that are measured in many processes, on one machine or on many."""
