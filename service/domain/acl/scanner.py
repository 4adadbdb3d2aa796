"""The words of HCL, version 1: the language that Consul's rules are written in, with its error texts and its way of counting columns.

A mistake inside of a word does not end the scanning: the last one is what the author is told, before anything that the grammar finds.
"""

import re
from typing import NamedTuple

EOF, IDENT, STRING, HEREDOC, NUMBER, FLOAT, BOOL = "EOF", "IDENT", "STRING", "HEREDOC", "NUMBER", "FLOAT", "BOOL"
_SIGNS = {"[": "LBRACK", "]": "RBRACK", "{": "LBRACE", "}": "RBRACE", ",": "COMMA", "=": "ASSIGN", "+": "ADD", "-": "SUB", ".": "PERIOD"}
_WORD = re.compile(r"(?:[^\W\d]|_)(?:\w|[-.])*")
_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|[0-9]+(?P<part>\.[0-9]+)?(?P<power>[eE][-+]?[0-9]+)?)")
_HEREDOC = re.compile(r"<<(-?)([^\W_]\w*)\r?\n")
_ESCAPE = re.compile(r'\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3}))')
_PLAIN_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_SPACE = " \t\n\r"


class Token(NamedTuple):
    """One word: its kind, its text as it was written, what it stands for, and where it begins."""

    kind: str
    text: str
    value: str
    place: str


class Scanner:
    """Takes a text apart.

    :ivar mistake: the last mistake inside of a word, with its place; empty when there was none.
    """

    def __init__(self, text: str) -> None:
        self.mistake = ""
        self._text = text
        self._at = 0
        self._beyond = 0

    def next(self) -> Token:
        """The next word; at the end, and as often as it is asked for behind it, EOF, each time a column further on."""
        self._skip()
        at = self._at
        if at >= len(self._text):
            self._beyond += 1
            return Token(EOF, "", "", self._place(at, self._beyond - 1))
        first = self._text[at]
        if word := _WORD.match(self._text, at):
            self._at = word.end()
            if self._at == len(self._text):
                self._beyond = 1
            return self._token(BOOL if word[0] in {"true", "false"} else IDENT, at, word[0])
        if number := _NUMBER.match(self._text, at):
            self._at = number.end()
            return self._token(FLOAT if number["part"] or number["power"] else NUMBER, at, number[0])
        if first == '"':
            return self._string()
        if first == "<":
            return self._heredoc()
        self._at += 1
        if first not in _SIGNS:
            self._complain("unexpected null character (0x00)" if first == "\0" else "illegal char", at)
        return self._token(_SIGNS.get(first, "ILLEGAL"), at, first)

    def _token(self, kind: str, at: int, value: str) -> Token:
        return Token(kind, self._text[at : self._at], value, self._place(at))

    def _skip(self) -> None:
        """Spaces and comments."""
        text = self._text
        while self._at < len(text):
            if text[self._at] in _SPACE:
                self._at += 1
            elif text[self._at] == "#" or text.startswith("//", self._at):
                end = text.find("\n", self._at)
                self._at = end if end >= 0 else len(text)
            elif text.startswith("/*", self._at):
                end = text.find("*/", self._at + 2)
                self._at = end + 2 if end >= 0 else len(text)
                if end < 0:
                    self._complain("comment not terminated", self._at)
            else:
                return

    def _string(self) -> Token:
        """A quoted text. Inside of ``${…}`` quotes and line ends stand for themselves."""
        begin, depth, parts = self._at, 0, [""]
        self._at += 1
        while True:
            character = self._text[self._at : self._at + 1]
            if not character or (character == "\n" and not depth):
                self._complain("literal not terminated", self._at)
                self._at += len(character)
                break
            if character == "\\":
                parts.append(self._escape())
                continue
            self._at += 1
            if character == '"' and not depth:
                break
            if character == "{" and (depth or self._text[self._at - 2] == "$"):
                depth += 1
            elif character == "}" and depth:
                depth -= 1
            parts.append(character)
        return self._token(STRING, begin, "".join(parts))

    def _escape(self) -> str:
        found = _ESCAPE.match(self._text, self._at)
        if found is None:
            end = self._at + 1
            while end < len(self._text) and self._text[end] in "xuU0123456789abcdefABCDEF":
                end += 1
            self._complain("illegal char escape", end)
            self._at += 2
            return ""
        self._at = found.end()
        plain, *numbers, octal = found.groups()
        if plain:
            return _PLAIN_ESCAPES[plain]
        code = int(octal, 8) if octal else int(next(filter(None, numbers)), 16)
        return chr(code) if code <= 0x10FFFF else "\ufffd"

    def _heredoc(self) -> Token:
        begin = self._at
        found = _HEREDOC.match(self._text, begin)
        if found is None:
            self._complain(
                "heredoc expected second '<', didn't see it" if not self._text.startswith("<<", begin) else "invalid characters in heredoc anchor",
                begin + 1,
            )
            self._at = len(self._text)
            return self._token(HEREDOC, begin, "")
        lines: list[str] = []
        at = found.end()
        while at < len(self._text):
            end = self._text.find("\n", at)
            line = self._text[at : end if end >= 0 else len(self._text)]
            at = end if end >= 0 else len(self._text)
            if line.strip(" \t\r") == found[2] and (found[1] or line.rstrip("\r") == found[2]):
                self._at = at
                return self._token(HEREDOC, begin, _unindented(lines) if found[1] else "".join(lines))
            lines.append(line + "\n")
            at += 1
        self._at = len(self._text)
        self._complain("heredoc not terminated", self._at)
        return self._token(HEREDOC, begin, "")

    def _complain(self, problem: str, at: int) -> None:
        self.mistake = f"At {self._place(at)}: {problem}"

    def _place(self, at: int, beyond: int = 0) -> str:
        """Line and column, both from 1."""
        line_start = self._text.rfind("\n", 0, at) + 1
        return f"{self._text.count(chr(10), 0, at) + 1}:{at - line_start + 1 + beyond}"


def _unindented(lines: list[str]) -> str:
    """Lines without the indentation that the least indented one has."""
    indents = [len(line) - len(line.lstrip(" \t")) for line in lines]
    least = min(indents, default=0)
    return "".join(line[least:] for line in lines)
