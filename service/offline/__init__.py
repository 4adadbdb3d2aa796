"""Tools that open a node's data directory while the node stands still: ``kvorum data``.

Everything else of the command line speaks to running nodes. These read and mend what lies on disk, so they know the log, the records and the state
file; nothing imports them.
"""
