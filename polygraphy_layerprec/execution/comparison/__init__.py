"""Reference against candidate: what layers did, and what the outputs became."""
