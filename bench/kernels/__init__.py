"""Numerical kernels as scientists write them: plain NumPy, with loops and in-place updates.

Written from the descriptions that NPBench (Ziogas et al., "Productivity, portability, performance:
data-centric Python", SC 2021) and pyhpc-benchmarks give of their kernels. Nothing here knows of
graphdl: tests and benchmarks trace these functions unchanged.
"""
