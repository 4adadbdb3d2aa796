"""Messages survive the way to bytes and back; nothing else comes in."""

import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from http import HTTPStatus
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.core.messages import AppendRequest, Heartbeat, InstallSnapshot, Message, ProposeRequest
from raft.core.model import Boundary, Configuration, Entry, EntryKind, Member
from raft.errors import MalformedMessage, MessageRefused, Outcome, UnsupportedVersion, WrongCluster, WrongRecipient
from raft.transport.codec import BATCH_MESSAGES_MAX, KINDS, PROTOCOL_VERSION, SnapshotPiece, decode, decode_piece, encode, encode_piece
from raft.transport.http import REFUSALS, HttpTransport
from raft.transport.http_server import HttpServer

MIB = 1024 * 1024
CLUSTER, SENDER, TO = "cluster-1", "n1", "n2"

RELAXED = settings(deadline=None)  # the machine may be busy

numbers = st.integers(0, 2**63 - 1)
names = st.text(min_size=1, max_size=12)
payloads = st.binary(max_size=200)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Configurations whose groups have unique ids."""
    ids = draw(st.lists(names, unique=True, max_size=6))
    members = tuple(Member(name, draw(st.text(max_size=5)), draw(st.text(max_size=20))) for name in ids)
    cut = draw(st.integers(0, len(members)))
    return Configuration(voters=members[:cut], learners=members[cut:], outgoing=members[: draw(st.integers(0, cut))])


@st.composite
def append_requests(draw: st.DrawFn) -> AppendRequest:
    """Appends that the core could have made."""
    previous_index, previous_term = draw(st.integers(0, 2**40)), draw(st.integers(0, 5))
    terms = sorted(draw(st.lists(st.integers(max(previous_term, 1), 9), max_size=8)))
    entries = tuple(Entry(previous_index + 1 + place, term, draw(st.sampled_from(EntryKind)), draw(payloads)) for place, term in enumerate(terms))
    return AppendRequest(SENDER, TO, draw(st.integers(9, 2**63 - 1)), previous_index, previous_term, entries, draw(numbers))


@st.composite
def install_snapshots(draw: st.DrawFn) -> InstallSnapshot:
    """Snapshots of any configuration."""
    boundary = Boundary(draw(st.integers(1, 2**63 - 1)), draw(st.integers(1, 2**63 - 1)), draw(configurations()))
    return InstallSnapshot(SENDER, TO, draw(st.integers(boundary.term, 2**63 - 1)), boundary)


def plain(message_class: type[Message]) -> st.SearchStrategy[Message]:
    """Messages of a class whose fields don't depend on each other."""
    by_type: dict[Any, st.SearchStrategy[Any]] = {int: numbers, bool: st.booleans(), str: st.text(), tuple[bytes, ...]: st.lists(payloads).map(tuple)}
    hints = get_type_hints(message_class)
    columns = {field.name: by_type[hints[field.name]] for field in fields(message_class) if field.name not in {"sender", "to"}}
    return st.builds(message_class, sender=st.just(SENDER), to=st.just(TO), **columns)


messages = st.one_of(
    append_requests(), install_snapshots(), *(plain(kind) for kind in KINDS.values() if kind not in {AppendRequest, InstallSnapshot})
)


def body_of(*message: object, version: object = PROTOCOL_VERSION, cluster: object = CLUSTER, sender: object = SENDER, to: object = TO) -> bytes:
    """A body made by hand."""
    return msgspec.msgpack.encode([version, cluster, sender, to, list(message)])


def accept(body: bytes, limit: int = MIB) -> tuple[Message, ...]:
    """Decode as the recipient would."""
    return decode(body, CLUSTER, TO, limit)


HEARTBEAT = Heartbeat(SENDER, TO, 3, 4, 5)


def test_every_message_class_has_a_kind() -> None:
    """The table of kinds holds each class of ``Message`` once: a new message can't be forgotten here."""
    assert set(KINDS.values()) == set(get_args(Message))
    assert len(KINDS) == len(get_args(Message))


def test_kind_numbers_stay() -> None:
    """Numbers on the wire never change their meaning."""
    assert {kind: message_class.__name__ for kind, message_class in KINDS.items()} == {
        1: "PreVoteRequest",
        2: "PreVoteResponse",
        3: "VoteRequest",
        4: "VoteResponse",
        5: "AppendRequest",
        6: "AppendAccepted",
        7: "AppendRejected",
        8: "Heartbeat",
        9: "HeartbeatResponse",
        10: "InstallSnapshot",
        11: "TimeoutNow",
        12: "ProposeRequest",
        13: "ProposeResponse",
        14: "ReadIndexRequest",
        15: "ReadIndexResponse",
    }


def test_bytes_on_the_wire_stay() -> None:
    """The layout of version 1, byte by byte, for a message of each shape: what an older node wrote must stay readable."""
    append = AppendRequest(SENDER, TO, 3, 7, 2, (Entry(8, 3, EntryKind.COMMAND, b"x"),), 6)
    assert msgspec.msgpack.decode(encode(CLUSTER, [HEARTBEAT, append])) == [
        1,
        CLUSTER,
        SENDER,
        TO,
        [[8, 3, 4, 5], [5, 3, 7, 2, [[8, 3, 1, b"x"]], 6]],
    ]


@given(st.lists(messages, min_size=1, max_size=8))
@RELAXED
def test_round_trip(batch: list[Message]) -> None:
    """Decoding gives back what was encoded, for any messages in one body."""
    decoded = accept(encode(CLUSTER, batch))
    assert decoded == tuple(batch)
    assert [type(message) for message in decoded] == [type(message) for message in batch]


@given(append_requests())
@RELAXED
def test_entries_keep_their_types(message: AppendRequest) -> None:
    """Entries come back as ``Entry`` with an ``EntryKind`` and ``bytes``, not as things that merely equal them."""
    (decoded,) = accept(encode(CLUSTER, [message]))
    assert isinstance(decoded, AppendRequest)
    for entry in decoded.entries:
        assert type(entry) is Entry
        assert type(entry.kind) is EntryKind
        assert type(entry.data) is bytes


@given(install_snapshots(), st.binary(max_size=100), st.integers(0, 50), st.integers(0, 50))
@RELAXED
def test_piece_round_trip(message: InstallSnapshot, data: bytes, before: int, behind: int) -> None:
    """Pieces of snapshots survive the way too, and know whether they are the last."""
    piece = SnapshotPiece(message, before + len(data) + behind, "0" * 64, before, data)
    decoded = decode_piece(encode_piece(CLUSTER, piece), CLUSTER, TO, MIB)
    assert decoded == piece
    assert decoded.is_last == (behind == 0)


@given(messages, st.data())
@RELAXED
def test_truncated_bodies_are_refused(message: Message, data: st.DataObject) -> None:
    """A body that lost its end is malformed, wherever it was cut."""
    body = encode(CLUSTER, [message])
    with pytest.raises(MalformedMessage):
        accept(body[: data.draw(st.integers(0, len(body) - 1))])


@given(st.binary(max_size=300))
@settings(RELAXED, max_examples=300)
def test_garbage_is_refused(body: bytes) -> None:
    """Random bytes never decode and never raise anything but a refusal."""
    with pytest.raises(MessageRefused):
        accept(body)
    with pytest.raises(MessageRefused):
        decode_piece(body, CLUSTER, TO, MIB)


@given(messages, st.data())
@settings(RELAXED, max_examples=300)
def test_changed_bytes_are_refused_or_make_sense(message: Message, data: st.DataObject) -> None:
    """A body with one changed byte is refused or decodes to legal messages; no other error gets out."""
    body = bytearray(encode(CLUSTER, [message]))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = accept(bytes(body))
    except MessageRefused:
        return
    assert all(type(found) in KINDS.values() for found in decoded)
    assert accept(encode(CLUSTER, decoded)) == decoded


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """What can happen to a frame: bits flip, a part is lost, doubled, moved or made up, the end is cut off or something follows it."""
    kind = draw(st.sampled_from(["flip", "lose", "double", "insert", "cut", "extend", "swap"]))
    at, length, extra = draw(st.integers(0, 10_000)), draw(st.integers(1, 40)), draw(st.binary(min_size=1, max_size=20))

    def damage(body: bytes) -> bytes:
        place = at % (len(body) + 1)
        before, part, after = body[:place], body[place : place + length], body[place + length :]
        return {
            "flip": before + bytes(byte ^ extra[0] for byte in part[:1]) + body[place + 1 :],
            "lose": before + after,
            "double": before + part + part + after,
            "insert": before + extra + part + after,
            "cut": before,
            "extend": body + extra,
            "swap": part + before + after,
        }[kind]

    return damage


@given(st.lists(messages, min_size=1, max_size=4), st.lists(damages(), min_size=1, max_size=5))
@settings(RELAXED, max_examples=200)
def test_damaged_frames_are_refused_or_make_sense(batch: list[Message], accidents: list[Callable[[bytes], bytes]]) -> None:
    """However a frame was damaged, it is refused as rejected, or it holds legal messages that survive the way again; nothing else is ever raised."""
    body = encode(CLUSTER, batch)
    for damage in accidents:
        body = damage(body)
    try:
        decoded = accept(body)
    except MessageRefused:
        assert MessageRefused.outcome is Outcome.REJECTED
    else:
        assert accept(encode(CLUSTER, decoded)) == decoded
    with pytest.raises(MessageRefused):
        decode_piece(body, CLUSTER, TO, MIB)


@given(install_snapshots(), st.binary(max_size=100), st.lists(damages(), min_size=1, max_size=5))
@settings(RELAXED, max_examples=120)
def test_damaged_pieces_are_refused_or_make_sense(message: InstallSnapshot, data: bytes, accidents: list[Callable[[bytes], bytes]]) -> None:
    """The same for a piece of a snapshot: what is taken ends within the whole, and its data are those that its checksum speaks of."""
    body = encode_piece(CLUSTER, SnapshotPiece(message, 10_000, "0" * 64, 7, data))
    for damage in accidents:
        body = damage(body)
    try:
        piece = decode_piece(body, CLUSTER, TO, MIB)
    except MessageRefused:
        return
    assert piece.offset + len(piece.data) <= piece.size
    assert decode_piece(encode_piece(CLUSTER, piece), CLUSTER, TO, MIB) == piece


@given(st.lists(messages, min_size=1, max_size=3), st.lists(damages(), max_size=3))
@settings(RELAXED, max_examples=120)
def test_every_frame_has_an_answer(batch: list[Message], accidents: list[Callable[[bytes], bytes]]) -> None:
    """A transport answers any frame by a status that says what was wrong, or hands all of its messages on; it never fails."""
    body = encode(CLUSTER, batch)
    for damage in accidents:
        body = damage(body)
    handed: list[Message] = []

    class Node:
        """Takes what arrives."""

        def receive(self, found: tuple[Message, ...]) -> None:
            """See the port."""
            handed.extend(found)

    transport = HttpTransport(HttpServer("127.0.0.1:0"), TO, CLUSTER)
    transport._handler = Node()  # type: ignore[assignment]  # no more is needed
    answer = transport._receive(body, False)
    assert isinstance(answer, tuple)
    status, reason = answer
    assert (status in REFUSALS.values(), status == HTTPStatus.NO_CONTENT) == (bool(reason), bool(handed))
    assert accidents or tuple(handed) == tuple(batch)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "head", [b"\x91", b"\x81\x01", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01"]
)
def test_what_claims_to_be_large_or_deep_is_refused_soon(head: bytes) -> None:
    """Lists in lists, maps in maps and lengths beyond the body, at the top and in a message: refused, with no memory taken for what was claimed."""
    whole = encode(CLUSTER, [HEARTBEAT])
    for filling in (head * (MIB // len(head)), head + bytes(MIB - len(head)), head):
        for body in (filling, whole[:-4] + filling[: MIB - len(whole)], whole[:1] + filling[: MIB - 1]):
            tracemalloc.start()
            with pytest.raises(MessageRefused):
                accept(body)
            with pytest.raises(MessageRefused):
                decode_piece(body, CLUSTER, TO, MIB)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 20 * MIB


@pytest.mark.parametrize(
    "message",
    [
        [8, 3, 4],
        [8, 3, 4, 5, 6],
        [8, 3, 4, "5"],
        [8, 3, 4, 5.0],
        [8, 3, 4, True],
        [8, 3, 4, None],
        [8, -1, 4, 5],
        [8, 3, 4, -5],
        [8, 3, 4, 2**63],
        [99, 1],
        [0, 1],
        ["8", 3, 4, 5],
        [],
        {},
        None,
        7,
        [5, 3, 7, 2, [[8, 3, 1, "text"]], 6],
        [5, 3, 7, 2, [[8, 3, 9, b"x"]], 6],
        [5, 3, 7, 2, [[9, 3, 1, b"x"]], 6],
        [5, 3, 7, 2, [[8, 1, 1, b"x"]], 6],
        [5, 3, 7, 2, [[8, 4, 1, b"x"]], 6],
        [5, 3, 0, 0, [[1, 0, 1, b"x"]], 0],
        [5, 3, 7, 2, [[8, 3, 1]], 6],
        [5, 3, -1, 2, [], 6],
        [10, 3, {"index": 0, "term": 1, "configuration": {}}],
        [10, 3, {"index": 5, "term": -1, "configuration": {}}],
        [10, 3, {"index": 5, "term": 2, "configuration": {"voters": [["x", "", ""], ["x", "", ""]]}}],
        [10, 3, {"index": 5, "term": 2, "configuration": {"voters": [["", "", ""]]}}],
        [10, 3, []],
        [12, 3, 1, b"no list"],
        [12, 3, 1, ["text"]],
    ],
    ids=repr,
)
def test_wrong_types_and_impossible_fields_are_refused(message: object) -> None:
    """A message that no node can have sent is malformed, and a good one in the same body doesn't get through either."""
    assert accept(body_of([8, 3, 4, 5])) == (HEARTBEAT,)
    with pytest.raises(MalformedMessage):
        accept(body_of([8, 3, 4, 5], message))


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (body_of([8, 3, 4, 5], version=2), UnsupportedVersion, "version 2"),
        (body_of([8, 3, 4, 5], version=0), UnsupportedVersion, "version 0"),
        (msgspec.msgpack.encode([2, {"another": "layout"}]), UnsupportedVersion, "version 2"),
        (body_of([8, 3, 4, 5], version="1"), MalformedMessage, "can't be read"),
        (body_of([8, 3, 4, 5], cluster="other"), WrongCluster, "'other'"),
        (body_of([8, 3, 4, 5], to="n3"), WrongRecipient, "'n3'"),
        (body_of([8, 3, 4, 5], sender=""), MalformedMessage, "without sender"),
        (body_of([8, 3, 4, 5], sender=TO), MalformedMessage, "itself"),
        (body_of(), MalformedMessage, "0 messages"),
        (body_of(*[[11, 1]] * (BATCH_MESSAGES_MAX + 1)), MalformedMessage, f"{BATCH_MESSAGES_MAX + 1} messages"),
        (b"", MalformedMessage, "can't be read"),
        (encode(CLUSTER, [HEARTBEAT]) + b"\x00", MalformedMessage, "can't be read"),
        (b"\x91" * 100_000, MalformedMessage, "can't be read"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_refusals_say_why(body: bytes, error: type[MessageRefused], words: str) -> None:
    """Each refusal has its own error, and its text names what was found."""
    with pytest.raises(error, match=words):
        accept(body)


def test_the_first_thing_wrong_decides() -> None:
    """Version comes before cluster, cluster before recipient, recipient before content."""
    for body, error in (
        (body_of(["bad"], version=9, cluster="other", to="n3"), UnsupportedVersion),
        (body_of(["bad"], cluster="other", to="n3"), WrongCluster),
        (body_of(["bad"], to="n3"), WrongRecipient),
        (body_of(["bad"]), MalformedMessage),
    ):
        with pytest.raises(error):
            accept(body)


def test_size_is_checked_before_decoding() -> None:
    """A body over the limit is refused for its size even when it is garbage; one at the limit is read."""
    body = encode(CLUSTER, [ProposeRequest(SENDER, TO, 1, 1, (bytes(100),))])
    assert accept(body, len(body))
    with pytest.raises(MalformedMessage, match=f"{len(body)} bytes is over the limit of {len(body) - 1}"):
        accept(body, len(body) - 1)
    with pytest.raises(MalformedMessage, match="over the limit"):
        accept(b"\xff" * 11, 10)


def test_one_body_has_one_sender_and_one_recipient() -> None:
    """Messages of different parties can't share a body, and an empty body can't be made."""
    for batch in ((HEARTBEAT, Heartbeat("n9", TO, 1, 1, 1)), (HEARTBEAT, Heartbeat(SENDER, "n9", 1, 1, 1)), ()):
        with pytest.raises(MalformedMessage, match="one sender"):
            encode(CLUSTER, batch)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda fields: fields.__setitem__(4, [8, 3, 4, 5]), "under a Heartbeat"),
        (lambda fields: fields.__setitem__(5, 3), "ends at byte 6 of a snapshot of 3"),
        (lambda fields: fields.__setitem__(6, "abc"), "can't be read"),
        (lambda fields: fields.__setitem__(7, -1), "can't be read"),
        (lambda fields: fields.__setitem__(8, 1), "damaged"),
        (lambda fields: fields.__setitem__(9, b"datA"), "damaged"),
        (lambda fields: fields.append(1), "can't be read"),
    ],
)
def test_impossible_pieces_are_refused(change: Callable[[list[object]], None], words: str) -> None:
    """A piece whose parts contradict each other is malformed."""
    message = InstallSnapshot(SENDER, TO, 3, Boundary(5, 2))
    parts = msgspec.msgpack.decode(encode_piece(CLUSTER, SnapshotPiece(message, 10, "a" * 64, 2, b"data")))
    change(parts)
    with pytest.raises(MalformedMessage, match=words):
        decode_piece(msgspec.msgpack.encode(parts), CLUSTER, TO, MIB)
