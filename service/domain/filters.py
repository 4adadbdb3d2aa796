"""Regular expressions that clients send, in the part of Go's syntax that Python shares."""

import re
from functools import lru_cache

REPETITIONS_MAX = 3
_QUANTIFIERS = "*+{?"
_UNKNOWN_TO_GO = re.compile(r"\(\?(?:[=!#]|<[=!])|\\[1-9]")


class FilterRefused(Exception):
    """An expression that can't be used; the text says why, as Go does where the case is known."""


@lru_cache(maxsize=256)
def compile_filter(text: str) -> re.Pattern[str]:
    """A filter as a pattern.

    Go matches in linear time and Python does not, so repetitions are few, and none stands inside another: a name of 63 characters is matched at once.

    :raises FilterRefused: with Go's text where it is known.
    """
    if unknown := _UNKNOWN_TO_GO.search(text):
        kind = "invalid or unsupported Perl syntax" if "(" in unknown[0] else "invalid escape sequence"
        raise FilterRefused(f"{kind}: `{unknown[0]}`")
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise FilterRefused(_as_go_says(error, text)) from None
    if _is_costly(text):
        raise FilterRefused(f"expression too costly: at most {REPETITIONS_MAX} repetitions, none inside another: `{text}`")
    return pattern


def _as_go_says(error: Exception, text: str) -> str:
    message = getattr(error, "msg", str(error))
    at = getattr(error, "pos", 0) or 0
    told = {
        "missing ), ": f"missing closing ): `{text}`",
        "unbalanced paren": f"unexpected ): `{text}`",
        "unterminated character set": f"missing closing ]: `{text[at:]}`",
        "nothing to repeat": f"missing argument to repetition operator: `{text[at : at + 1]}`",
        "multiple repeat": f"invalid nested repetition operator: `{text[max(0, at - 1) : at + 1]}`",
        "bad escape (end": "trailing backslash at end of expression: ``",
    }
    return next((told[known] for known in told if message.startswith(known)), f"{message}: `{text}`")


def _is_costly(text: str) -> bool:
    """Whether a valid expression may take long: it is read as groups, each with or without a repetition inside."""
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", text)
    bare = bare.replace("(?", "(")
    groups = [False]
    total = 0
    for position, character in enumerate(bare):
        if character == "(":
            groups.append(False)
        elif character == ")" and len(groups) > 1:
            repeats_inside = groups.pop()
            repeated = bare[position + 1 : position + 2] in tuple("*+{")
            if repeats_inside and repeated:
                return True
            groups[-1] = groups[-1] or repeats_inside
        elif character in _QUANTIFIERS or character == "|":
            groups[-1] = True
            total += character in "*+{"
    return total > REPETITIONS_MAX
