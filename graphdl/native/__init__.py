"""Programs outside of Python: in nopython code, by a C pointer, as object code, in a file."""
