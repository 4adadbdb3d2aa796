"""Archives of the whole state in the form of Consul's snapshots: a gzipped tar of ``meta.json``, ``state.bin`` and ``SHA256SUMS``."""
