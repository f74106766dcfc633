"""Program -> native code: elementary functions, generated kernels, cache, runtime."""
