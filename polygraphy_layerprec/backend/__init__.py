"""Polygraphy's side: engines built and run by its loaders and runners."""
