"""Finds again in a model what a script, a ranking or saved results name."""
