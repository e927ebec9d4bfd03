"""One node at a time on ONNX-Runtime: its session, its tensors, its weights."""
