"""What the user reads and keeps: tables, next steps, and files."""
