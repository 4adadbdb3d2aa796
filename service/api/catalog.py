"""The catalog: the servers of the cluster as Consul's nodes, each with the service ``consul`` and the check ``serfHealth``.

There is nothing else in it. Documents have Consul's fields in Consul's order.
"""

from collections.abc import Mapping
from typing import Any

from service.domain.servers import Server
from service.settings import Settings

CONSUL_VERSION = "1.8.7"
"""The release whose API this one speaks; clients choose their behaviour by it."""
COORDINATE = {"Vec": [0] * 8, "Error": 1.5, "Adjustment": 0, "Height": 0.00001}
"""Where every node is said to be: nobody measures how far apart they are."""
SERVICE = "consul"
META = {"consul-network-segment": ""}
PASSING, CRITICAL = "passing", "critical"
ALIVE, FAILED = 1, 4

Document = dict[str, Any]


def member(server: Server, settings: Settings) -> Document:
    """One element of ``/v1/agent/members``."""
    host, port = _endpoint(server)
    tags = {
        "acls": "1" if settings.acl_enabled == "true" else "0",
        "build": f"{CONSUL_VERSION}:",
        "dc": settings.datacenter,
        "id": server.id,
        "port": str(port),
        "raft_vsn": "3",
        "role": SERVICE,
        "segment": "",
        "vsn": "2",
        "vsn_max": "3",
        "vsn_min": "2",
    }
    if not server.voter:
        tags = {name: tags[name] for name in ("acls", "build", "dc", "id")} | {"nonvoter": "1"} | tags
    protocols = {"ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2, "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4}
    return {"Name": server.name, "Addr": host, "Port": port, "Tags": tags, "Status": ALIVE if server.alive else FAILED, **protocols}


def node(server: Server, datacenter: str, meta: str = "Meta") -> Document:
    """One node.

    :param meta: what its metadata are called.
    """
    return _about_node(server, datacenter) | {meta: META, **_indexes(server)}


def service(server: Server) -> Document:
    """The service of a node, as it is told along with the node."""
    return {
        "ID": SERVICE,
        "Service": SERVICE,
        "Tags": [],
        "Address": "",
        "Meta": _service_meta(server),
        "Port": _endpoint(server)[1],
        "Weights": _weights(),
        "EnableTagOverride": False,
        "Proxy": _proxy(),
        "Connect": {},
        **_indexes(server),
    }


def service_node(server: Server, datacenter: str) -> Document:
    """One element of ``/v1/catalog/service/consul``."""
    return _about_node(server, datacenter) | {
        "NodeMeta": META,
        "ServiceKind": "",
        "ServiceID": SERVICE,
        "ServiceName": SERVICE,
        "ServiceTags": [],
        "ServiceAddress": "",
        "ServiceWeights": _weights(),
        "ServiceMeta": _service_meta(server),
        "ServicePort": _endpoint(server)[1],
        "ServiceEnableTagOverride": False,
        "ServiceProxy": _proxy(),
        "ServiceConnect": {},
        **_indexes(server),
    }


def status(server: Server) -> str:
    """Of the check of a node."""
    return PASSING if server.alive else CRITICAL


def check(server: Server) -> Document:
    """The check of a node."""
    return {
        "Node": server.name,
        "CheckID": "serfHealth",
        "Name": "Serf Health Status",
        "Status": status(server),
        "Notes": "",
        "Output": "Agent alive and reachable" if server.alive else "Agent not live or unreachable",
        "ServiceID": "",
        "ServiceName": "",
        "ServiceTags": [],
        "Type": "",
        "Definition": {},
        "CreateIndex": server.create_index,
        "ModifyIndex": server.check_index,
    }


def health(server: Server, datacenter: str) -> Document:
    """One element of ``/v1/health/service/consul``."""
    return {"Node": node(server, datacenter), "Service": service(server), "Checks": [check(server)]}


def coordinate(server: Server) -> Document:
    """One element of ``/v1/coordinate/nodes``."""
    return {"Node": server.name, "Segment": "", "Coord": COORDINATE}


def has_meta(wanted: Mapping[str, str]) -> bool:
    """Whether a node has all of these metadata; all nodes have the same."""
    return wanted.items() <= META.items()


def _about_node(server: Server, datacenter: str) -> Document:
    host, _ = _endpoint(server)
    family = "ipv6" if ":" in host else "ipv4" if host.replace(".", "").isdecimal() else ""
    tagged = {"lan": host, "wan": host} | ({f"lan_{family}": host, f"wan_{family}": host} if family else {})
    return {"ID": server.id, "Node": server.name, "Address": host, "Datacenter": datacenter, "TaggedAddresses": dict(sorted(tagged.items()))}


def _endpoint(server: Server) -> tuple[str, int]:
    """Host and port for the other nodes."""
    host, _, port = server.address.rpartition(":")
    return host.strip("[]"), int(port or 0)


def _indexes(server: Server) -> Document:
    return {"CreateIndex": server.create_index, "ModifyIndex": server.modify_index}


def _service_meta(server: Server) -> dict[str, str]:
    return {
        "non_voter": "false" if server.voter else "true",
        "raft_version": "3",
        "serf_protocol_current": "2",
        "serf_protocol_max": "5",
        "serf_protocol_min": "1",
        "version": CONSUL_VERSION,
    }


def _weights() -> dict[str, int]:
    return {"Passing": 1, "Warning": 1}


def _proxy() -> Document:
    return {"MeshGateway": {}, "Expose": {}}
