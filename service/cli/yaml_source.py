"""Nested YAML as keys. It works on the parsed nodes, so that scalars keep the text of the file and errors know their line."""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator

import yaml

from service.errors import ImportInvalid

DEPTH_MAX = 100
_BINARY_TAG = "tag:yaml.org,2002:binary"
_NULL_TAG = "tag:yaml.org,2002:null"
_MERGE_TAG = "tag:yaml.org,2002:merge"


def flatten_yaml(text: str, place: str) -> Iterator[tuple[str, bytes, int]]:
    """Key, value and flags (0) of each scalar.

    :param place: the file, for messages.
    :raises ImportInvalid: naming the line.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is not None:
                yield from _Document(loader, place).pairs(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ImportInvalid(f"{place}: {where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ImportInvalid(f"{place}: {str(error).splitlines()[0]}") from error


class _Document:
    """One document. A node may be met more than once (aliases); its merged keys are worked out the first time."""

    def __init__(self, loader: yaml.SafeLoader, place: str) -> None:
        self._loader = loader
        self._place = place
        self._maps: dict[int, dict[str, yaml.Node]] = {}

    def pairs(self, root: yaml.Node) -> Iterator[tuple[str, bytes, int]]:
        """Every scalar below the map at the top."""
        if not isinstance(root, yaml.MappingNode):
            raise self._invalid(root, "a map is expected at the top")
        for name, value in self._items(root).items():
            yield from self._below(name, value, 1)

    def _below(self, key: str, node: yaml.Node, depth: int) -> Iterator[tuple[str, bytes, int]]:
        if depth > DEPTH_MAX:
            raise self._invalid(node, f"nested more than {DEPTH_MAX} levels deep")
        if isinstance(node, yaml.MappingNode):
            for name, value in self._items(node).items():
                yield from self._below(f"{key}/{name}", value, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for position, value in enumerate(node.value):
                yield from self._below(f"{key}/{position}", value, depth + 1)
        else:
            yield key, self._scalar(node), 0

    def _scalar(self, node: yaml.Node) -> bytes:
        if node.tag == _NULL_TAG:
            return b""
        if node.tag != _BINARY_TAG:
            return bytes(node.value.encode("utf-8"))
        try:
            return b64decode("".join(node.value.split()), validate=True)
        except (Base64Error, ValueError) as error:
            raise self._invalid(node, "no base64") from error

    def _items(self, node: yaml.MappingNode) -> dict[str, yaml.Node]:
        if id(node) not in self._maps:
            self._check_keys(node)
            # Merged maps ("<<") come first then, so that the map's own keys win.
            self._loader.flatten_mapping(node)
            self._maps[id(node)] = {key.value: value for key, value in node.value}
        return self._maps[id(node)]

    def _check_keys(self, node: yaml.MappingNode) -> None:
        own: set[str] = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._invalid(key, "a key must be plain text")
            if key.value in own and key.tag != _MERGE_TAG:
                raise self._invalid(key, f"the key {key.value!r} appears twice")
            own.add(key.value)

    def _invalid(self, node: yaml.Node, problem: str) -> ImportInvalid:
        return ImportInvalid(f"{self._place}: line {node.start_mark.line + 1}, column {node.start_mark.column + 1}: {problem}")
