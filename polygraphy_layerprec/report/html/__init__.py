"""Reports as one HTML file each, which open offline: what they show, and how it is drawn."""
