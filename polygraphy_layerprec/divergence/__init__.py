"""How far layers move in low precision, and what that does to the outputs."""
