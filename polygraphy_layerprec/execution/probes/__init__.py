"""What a node does to errors and to values out of range, found by running it again."""
