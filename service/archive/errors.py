"""Why an archive can't be used."""

from service.errors import KvorumError


class ArchiveInvalid(KvorumError):
    """An archive that is not whole, not sound, or holds what can't be restored; the text names it, in Consul's words where Consul has some."""


def unreadable(problem: str) -> ArchiveInvalid:
    """The error for whatever is wrong inside of the compressed stream."""
    return ArchiveInvalid(f"failed to read snapshot file: {problem}")
