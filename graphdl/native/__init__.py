"""Programs outside of Python: in nopython code, by a C pointer, as object code, in a file.

`graphdl.kernels.cpu.image` has the program as data without addresses, which all but files build on.

    signature, nesting       what a program takes and returns, for callers that know tuples only
    nopython                 executable.njit
    pointer                  executable.address
    exported, c_object, c_text   executable.export_c
    saved, graph_data, tree_data   executable.save and gd.load
"""
