"""Which names of NumPy and SciPy work on traced values: `python -m graphdl.coverage`.

Every name is called: on traced arrays, compared with the original, its gradient with finite
differences.
"""
