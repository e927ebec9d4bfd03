"""Engines, built once, kept, and run: of a ranking and of a verification alike."""
