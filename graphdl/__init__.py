"""graphdl: NumPy code as compiled, differentiable graphs."""
