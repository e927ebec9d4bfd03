"""Samples: checked when given, made up when not."""
