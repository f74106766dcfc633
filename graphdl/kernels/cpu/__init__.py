"""Kernels on the CPU: intrinsics, compilation, thread pool, native entry."""
