"""Events: what ``/v1/event`` answers.

Firing one is an entry of the log. The list is this node's own, read without asking anybody, so it also answers while there is no leader.
"""

import uuid
from binascii import b2a_base64
from http import HTTPStatus

import msgspec

from service.api import params as parameters
from service.api.acl.resolver import DENIED
from service.api.errors import Answer, RequestRefused
from service.api.kv import Environ, KeyValue, read_body
from service.api.reads import Kind, Query
from service.api.responses import JSON, json_answer, pretty, text
from service.domain.acl.authorizer import Authorizer
from service.domain.acl.rules import WRITE
from service.domain.commands import FireEvent, encode
from service.domain.events import BYTES_MAX, VERSION, Event, fits
from service.domain.filters import FilterRefused, compile_filter
from service.domain.results import decode
from service.ipc.client import AgentClient
from service.settings import Settings

FIRE = "/v1/event/fire/"
_FAILED = 500
_TOO_LONG = '1 error occurred:\n\t* error broadcasting event to segment "": user event exceeds configured limit of 512 bytes before encoding\n\n'
_FILTERS = ("node", "service", "tag")


class Events:
    """The events of one worker.

    :param kv: whose reads and waiting they share.
    """

    def __init__(self, backend: AgentClient, kv: KeyValue, settings: Settings) -> None:
        self._backend = backend
        self._kv = kv
        self._node = settings.name

    def fire(self, environ: Environ) -> Answer:
        """PUT: the event as it was taken."""
        params = parameters.parse_for_write(environ["QUERY_STRING"])
        name = environ["PATH_INFO"].encode("latin-1")[len(FIRE) :]
        if not name:
            raise RequestRefused(400, "Missing name")
        self._kv.check_datacenter(params)
        body = _read_payload(environ)
        node, service, tag = (params.query.get(filter_, ("",))[0] for filter_ in _FILTERS)
        event = FireEvent(str(uuid.uuid4()), name, body, node, service, tag, parameters.origin(environ))
        _check(event)
        if self._kv.permissions.enabled:
            who = self._may_fire(environ, name)
            event = msgspec.structs.replace(event, origin=parameters.origin(environ, who.accessor))
        decode(self._backend.propose(encode(event)))
        return json_answer(_json(Event(0, event.id, name, body, node, service, tag)), indent=params.pretty)

    def _may_fire(self, environ: Environ, name: bytes) -> Authorizer:
        try:
            return self._kv.permissions.require(environ, WRITE, "event", name)
        except RequestRefused as refused:
            # Consul tells this one mistake from others.
            raise RequestRefused(refused.status if refused.text == DENIED else _FAILED, refused.text) from None

    def list(self, environ: Environ) -> Answer:
        """GET: the newest events, the oldest of them first."""
        params = parameters.parse_watch(environ["QUERY_STRING"])
        name = params.query.get("name", ("",))[0].encode("utf-8", "surrogateescape")
        query = Query(Kind.EVENTS, name, node=self._node, token=self._kv.permissions.token(environ))
        result = self._kv.read(query, params)
        body = b"[%b]" % b",".join(map(_json, result.found))
        return 200, [JSON, ("X-Consul-Index", str(result.index))], pretty(body) if params.pretty else body


def _read_payload(environ: Environ) -> bytes:
    try:
        return read_body(environ, BYTES_MAX)
    except RequestRefused as refused:
        raise (RequestRefused(_FAILED, _TOO_LONG) if refused.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else refused) from None


def _check(event: FireEvent) -> None:
    if event.tag_filter and not event.service_filter:
        raise RequestRefused(_FAILED, "Cannot provide tag filter without service filter")
    for name, given in zip(_FILTERS, (event.node_filter, event.service_filter, event.tag_filter), strict=True):
        try:
            compile_filter(given)
        except FilterRefused as refused:
            raise RequestRefused(_FAILED, f"Invalid {name} filter: error parsing regexp: {refused}") from None
    if not fits(event):
        raise RequestRefused(_FAILED, _TOO_LONG)


def _json(event: Event) -> bytes:
    node, service, tag = (text(given.encode("utf-8", "surrogateescape")) for given in event[4:])
    payload = b'"%b"' % b2a_base64(event.payload, newline=False) if event.payload else b"null"
    form = b'{"ID":"%b","Name":%b,"Payload":%b,"NodeFilter":%b,"ServiceFilter":%b,"TagFilter":%b,"Version":%d,"LTime":%d}'
    return form % (event.id.encode(), text(event.name), payload, node, service, tag, VERSION, event.ltime)
