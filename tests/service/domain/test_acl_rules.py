"""The rules of policies: Consul 1.8.7 was given each of these texts, and answered so (an empty answer: it took them)."""

import pytest

from service.domain.acl.authorizer import Authorizer
from service.domain.acl.rules import RulesRefused, read

PARSING = "Failed to parse ACL rules: "
RECORDED = [
    ('key "a" { policy = "read" }', ""),
    ('key "a" { policy = "bad" }', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"bad", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('key "a" { policy = "" }', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('key "a" {}', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('key "a" { sentinel {} }', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('key_prefix "" { policy = "list" }', ""),
    ('key "a" { policy = "list" }', ""),
    ('operator = "bad"', 'Invalid operator policy: "bad"'),
    ('operator = "list"', 'Invalid operator policy: "list"'),
    ('acl = "bad"', 'Invalid acl policy: "bad"'),
    ('keyring="x"', 'Invalid keyring policy: "x"'),
    ('session "x" { policy = "list" }', 'Invalid session policy: &acl.SessionRule{Node:"x", Policy:"list"}'),
    ('session_prefix "x" { policy = "q" }', 'Invalid session_prefix policy: &acl.SessionRule{Node:"x", Policy:"q"}'),
    ('node "x" { policy = "q" }', 'Invalid node policy: &acl.NodeRule{Name:"x", Policy:"q", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('node_prefix "x" { policy = "q" }', 'Invalid node_prefix policy: &acl.NodeRule{Name:"x", Policy:"q", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('agent "x" { policy = "q" }', 'Invalid agent policy: &acl.AgentRule{Node:"x", Policy:"q"}'),
    ('agent_prefix "x" { policy = "q" }', 'Invalid agent_prefix policy: &acl.AgentRule{Node:"x", Policy:"q"}'),
    ('event "x" { policy = "q" }', 'Invalid event policy: &acl.EventRule{Event:"x", Policy:"q"}'),
    ('event_prefix "x" { policy = "q" }', 'Invalid event_prefix policy: &acl.EventRule{Event:"x", Policy:"q"}'),
    ('query "x" { policy = "q" }', 'Invalid query policy: &acl.PreparedQueryRule{Prefix:"x", Policy:"q"}'),
    ('query_prefix "x" { policy = "q" }', 'Invalid query_prefix policy: &acl.PreparedQueryRule{Prefix:"x", Policy:"q"}'),
    (
        'service "x" { policy = "q" }',
        'Invalid service policy: &acl.ServiceRule{Name:"x", Policy:"q", Intentions:"", EnterpriseRule:acl.EnterpriseRule{}}',
    ),
    (
        'service_prefix "x" { policy = "q" }',
        'Invalid service_prefix policy: &acl.ServiceRule{Name:"x", Policy:"q", Intentions:"", EnterpriseRule:acl.EnterpriseRule{}}',
    ),
    (
        'service "x" { policy = "read" intentions = "q" }',
        'Invalid service intentions policy: &acl.ServiceRule{Name:"x", Policy:"read", Intentions:"q", EnterpriseRule:acl.EnterpriseRule{}}',
    ),
    ('key_prefix "x" { policy = "read", }', ""),
    ('bogus "x" { policy = "read" }', ""),
    ("bogus = 1", ""),
    ("key", PARSING + "At 1:5: key 'key' expected start of object ('{') or assignment ('=')"),
    ('key "a"', PARSING + "At 1:8: key 'key \"a\"' expected start of object ('{') or assignment ('=')"),
    ('key "a" {', PARSING + "At 1:11: object expected closing RBRACE got: EOF"),
    ('key "a" { policy', PARSING + "At 1:18: key 'policy' expected start of object ('{') or assignment ('=')"),
    ('key "a" { policy = ', PARSING + "At 1:21: object expected closing RBRACE got: EOF"),
    ('key "a" { policy = "read"', PARSING + "At 1:27: object expected closing RBRACE got: EOF"),
    ("}", PARSING + "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: RBRACE"),
    ('"', PARSING + "At 1:2: literal not terminated"),
    ('key "a" { policy = read }', PARSING + "At 1:20: Unknown token: 1:20 IDENT read"),
    ('key "a" { policy = 1 }', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"1", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('key a { policy = "read" }', ""),
    ('key = "x"', PARSING + "At 1:7: unknown slice type: *ast.LiteralType"),
    ('key "a" = { policy = "read" }', PARSING + "At 1:9: nested object expected: LBRACE got: ASSIGN"),
    ('"key" "a" { "policy" = "read" }', ""),
    ('key "a" { policy = "read" } # c', ""),
    ('// c\nkey "a" { policy = "read" }', ""),
    ("/* c */", ""),
    ("/* c", PARSING + "At 1:5: comment not terminated"),
    ('key "a" { policy = <<EOF\nread\nEOF\n}', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"read\\n", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('key "a" { policy = ["read"] }', PARSING + "At 1:20: root.key[0].Policy: unknown type for string *ast.ListType"),
    ('key { a { policy = "read" } }', ""),
    ('key "a" "b" { policy = "read" }', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('key "a" { foo = "read" }', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"", EnterpriseRule:acl.EnterpriseRule{}}'),
    ("operator = true", PARSING + "At 1:12: root.operator: unknown type for string *ast.LiteralType"),
    ("operator = 1", 'Invalid operator policy: "1"'),
    ('operator = ""', ""),
    ('{"key":{"a":{"policy":"read"}}}', ""),
    ('{"key":{"a":{"policy":"bad"}}}', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"bad", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('{"operator":"read"}', ""),
    ('{"operator":"zz"}', 'Invalid operator policy: "zz"'),
    ('{"key":[{"a":{"policy":"read"}}]}', ""),
    ('{"key":"x"}', PARSING + "At -: unknown slice type: *ast.LiteralType"),
    ('{"bogus":1}', ""),
    ('{"key":{"a":{}}}', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"", EnterpriseRule:acl.EnterpriseRule{}}'),
    ("[]", PARSING + "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: LBRACK"),
    ("{}", ""),
    ('""', PARSING + "At 1:3: key '\"\"' expected start of object ('{') or assignment ('=')"),
    ("null", PARSING + "At 1:6: key 'null' expected start of object ('{') or assignment ('=')"),
    ("1", PARSING + "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: NUMBER"),
    ('key "a" { policy = "read" } }', PARSING + "At 1:29: expected: IDENT | STRING | ASSIGN | LBRACE got: RBRACE"),
    ('key "a" { policy = "re\\"ad" }', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"re\\"ad", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('key "\\x41" { policy = "deny" }', ""),
    ('key "a\\nb" { policy = "deny" }', ""),
    ('key "a\nb" { policy = "deny" }', PARSING + "At 2:23: literal not terminated"),
    ('key "${a}" { policy = "deny" }', ""),
    ("a = b", PARSING + "At 1:5: Unknown token: 1:5 IDENT b"),
    ("a: b", PARSING + "At 1:2: illegal char"),
    ('key "a" { policy = "read" }\nkey "a" { policy = "write" }', ""),
    ('operator = "read"\noperator = "write"', ""),
    ('session "a" { policy = "read" }', ""),
    ('\ufeffoperator="read"', PARSING + "At 1:1: illegal char"),
    ('operator = "read";', PARSING + "At 1:18: illegal char"),
    ('operator = "read",', ""),
    ('operator "read"', PARSING + "At 1:16: key 'operator \"read\"' expected start of object ('{') or assignment ('=')"),
    ('Operator = "read"', ""),
    ('KEY "a" { policy = "read" }', ""),
    ("key 'a' { policy = 'read' }", PARSING + "At 1:5: illegal char"),
    (
        'agent "a" { policy = "read" } agent_prefix "" { policy = "write" } event_prefix "" { policy="read" } query_prefix "" { policy = "deny" } keyring = "deny" acl = "read" service "x" { policy = "write" intentions = "read" }',  # noqa: E501 - as recorded
        "",
    ),
    ('mesh = "read"', ""),
    ('key "a" { policy = "sudo" }', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"sudo", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('key_prefix "x" { policy = "deny" sentinel { code = "x" enforcementlevel = "hard" } }', ""),
    ("\x00", PARSING + "At 1:1: unexpected null character (0x00)"),
    ('key "a" { policy = "read" } \x01', PARSING + "At 1:29: illegal char"),
    ("operator = 0x1F", 'Invalid operator policy: "0x1F"'),
    ("operator = 1.5e3", PARSING + "At 1:12: root.operator: unknown type for string *ast.LiteralType"),
    ("operator = -1", 'Invalid operator policy: "-1"'),
    ("operator = @", PARSING + "At 1:12: illegal char"),
    ('key "a" {policy="read"} = 1', PARSING + "At 1:25: no object keys found!"),
    ('é = "read"', ""),
    ('operator = "\\u00zz"', PARSING + "At 1:17: illegal char escape"),
    ('operator = "unterminated', PARSING + "At 1:25: literal not terminated"),
    ('foo.bar = "x"', ""),
    ('foo-bar "x" {}', ""),
    ("operator = null", PARSING + "At 1:12: Unknown token: 1:12 IDENT null"),
    ('{"operator": null}', ""),
    ('{"operator": 1}', 'Invalid operator policy: "1"'),
    ('{"operator": true}', PARSING + "At -: root.operator: unknown type for string *ast.LiteralType"),
    ('{"key": {"a": {"policy": 5}}}', 'Invalid key policy: &acl.KeyRule{Prefix:"a", Policy:"5", EnterpriseRule:acl.EnterpriseRule{}}'),
    ('{"key_prefix": {"": {"policy": "read"}, "x": {"policy":"deny"}}}', ""),
    ('{"key":{"a":{"policy":"read"}}} x', ""),
    ('key "" { policy = "read" }', ""),
    ('acl="read"\nacl="deny"', ""),
    ('key "a" { policy = "read" policy = "write" }', ""),
    ('key "a" { policy = "read"; }', PARSING + "At 1:26: illegal char"),
    ('agent_master="x"', ""),
    ('namespace "x" {}', ""),
    ('namespace_prefix "x" {}', ""),
]


def problem(text: str) -> str:
    """Why rules are refused; empty when they are not."""
    try:
        read(text)
    except RulesRefused as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize(("text", "answer"), RECORDED)
def test_as_recorded(text: str, answer: str) -> None:
    """What Consul takes is taken, and what it refuses is refused with its words."""
    assert problem(text) == answer


@pytest.mark.parametrize("text", ["{", '{"key":', '{"key":}', "{'a':1}"])
def test_broken_json_is_refused(text: str) -> None:
    """Consul takes JSON that was cut off and grants nothing by it; here its author is told."""
    assert problem(text).startswith(PARSING)


def test_depth_is_limited() -> None:
    """Rules that are nested without end are refused, in both notations."""
    assert "inside of each other" in problem("a = " + "[" * 5_000)
    assert "inside of each other" in problem("a { " * 5_000)
    assert problem('{"a":' * 50_000)


def may(rules: str, level: str, resource: str, name: str = "", *, default_allows: bool = False) -> bool:
    """What rules allow."""
    return Authorizer(read(rules), default_allows=default_allows).may(level, resource, name)


NESTED = (
    'key_prefix "a/" { policy = "write" } key "a/ro" { policy = "read" } key_prefix "a/no/" { policy = "deny" } key_prefix "l" { policy = "list" }'
)


@pytest.mark.parametrize(
    ("level", "name", "allowed"),
    [
        ("write", "a/x", True),
        ("write", "a/ro", False),
        ("read", "a/ro", True),
        ("write", "a/ro2", True),
        ("read", "a/no/x", False),
        ("read", "a/no", True),
        ("read", "l1", True),
        ("list", "l1", True),
        ("write", "l1", False),
        ("list", "a/ro", False),
        ("read", "b", False),
    ],
)
def test_exact_beats_prefix_and_longer_beats_shorter(level: str, name: str, allowed: bool) -> None:
    """The most specific rule about a name decides, and only where there is none the default policy."""
    assert may(NESTED, level, "key", name) is allowed
    assert may(NESTED, level, "key", name, default_allows=True) is (allowed or name == "b")


def test_the_strictest_of_several_rules_wins() -> None:
    """Two rules about one name: deny, then write, then list, then read."""
    for weaker, stronger in (("read", "list"), ("list", "write"), ("write", "deny")):
        for pair in ((weaker, stronger), (stronger, weaker)):
            rules = read("\n".join(f'key "k" {{ policy = "{policy}" }}' for policy in pair))
            alone = read(f'key "k" {{ policy = "{stronger}" }}')
            assert [Authorizer(rules, default_allows=True).may(level, "key", "k") for level in ("read", "list", "write")] == [
                Authorizer(alone, default_allows=True).may(level, "key", "k") for level in ("read", "list", "write")
            ]


@pytest.mark.parametrize(
    ("prefix", "denied", "allowed"),
    [(b"a/", True, False), (b"a/x", False, True), (b"a/r", True, False), (b"a/no/z", True, False), (b"", True, False), (b"q", False, False)],
)
def test_a_whole_prefix(prefix: bytes, denied: bool, allowed: bool) -> None:
    """All keys of a prefix may be written only if no rule below it says otherwise."""
    rules = read(NESTED)
    assert Authorizer(rules, default_allows=False).may_on_all("write", prefix) is allowed
    assert Authorizer(rules, default_allows=True).may_on_all("write", prefix) is not denied


def test_the_acl_is_never_open_by_default() -> None:
    """Whatever the default policy, tokens and snapshots need a rule."""
    nobody = Authorizer([], default_allows=True)
    assert nobody.may("write", "key", "k")
    assert nobody.may("write", "operator")
    assert not nobody.may("read", "acl")
    assert not nobody.may_manage()
    assert Authorizer(read('acl = "write"'), default_allows=False).may_manage()
