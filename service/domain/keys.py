"""Rules about keys alone: ranges of bytes that a prefix stands for, and folding at a separator."""


def upper_bound(prefix: bytes) -> bytes | None:
    """The smallest key that is above every key beginning with ``prefix``, in byte order.

    :returns: None when there is none: the prefix is empty or holds nothing but 0xff.
    """
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return None
    return stem[:-1] + bytes([stem[-1] + 1])


def fold(key: bytes, prefix: bytes, separator: bytes) -> bytes:
    """Cut a key after the first separator behind the prefix; the separator is kept, as the mark of a folder.

    :param key: a key that begins with ``prefix``.
    :param separator: any number of bytes; empty cuts nothing.
    """
    if not separator:
        return key
    at = key.find(separator, len(prefix))
    return key if at < 0 else key[: at + len(separator)]


def after_folded(key: bytes, folded: bytes) -> bytes | None:
    """Where a listing goes on after ``key`` was listed as ``folded``: past the folder if it became one, else past the key.

    :returns: the least key that may still show something new; None when nothing can follow.
    """
    if len(folded) < len(key):
        return upper_bound(folded)
    return key + b"\x00"
