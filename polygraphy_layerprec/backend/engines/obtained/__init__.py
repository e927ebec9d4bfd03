"""What an engine tells of its layers, and which precision each layer of the model obtained."""
