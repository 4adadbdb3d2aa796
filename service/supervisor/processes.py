"""Which processes belong to whom, read from /proc."""

from pathlib import Path


def children_of(parent: int) -> list[int]:
    """Process ids of the children of a process, the oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold anything, so the fields are counted from its end.
            state_fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent_found, started = state_fields[0], int(state_fields[1]), int(state_fields[19])
        if parent_found == parent and state != "Z":
            found.append((started, int(entry.name)))
    return [pid for _started, pid in sorted(found)]
