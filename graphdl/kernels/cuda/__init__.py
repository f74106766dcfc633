"""The CUDA target: programs as kernels of an NVIDIA GPU."""
