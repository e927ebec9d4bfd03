"""What is kept on disk: written whole or not at all, read as if anybody had made it."""
