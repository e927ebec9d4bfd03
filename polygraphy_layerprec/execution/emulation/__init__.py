"""A model in low precision on FP32 kernels: node by node, beside its reference."""
