"""HAProxy's configuration as text. Pure.

What changes often, weights and servers, is not part of the structure: HAProxy takes it at run time. It is in the text all the
same, so that an HAProxy that starts anew starts with the last state. `structure` is a hash over the rest, and is
in the text as `description`: what a worker answers to `show info` says which structure it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import chain

from moorage_operator.router import pools, split
from moorage_operator.router.endpoints import Address, Protocol
from moorage_operator.router.pools import Backend, Pools
from moorage_operator.router.settings import Layout
from moorage_operator.router.table import BUCKETS, MATCH_SUFFIX, Condition, Model, Stickiness, Table

_COOKIE_SECONDS = 365 * 24 * 3600
_SLACK_SECONDS = 5
"""A client's side waits longer than the server's: a slow model is a 504, never a cut connection."""
_STOP_SLACK_SECONDS = 30

# A server is tried by each request and, beside, once a second: what refuses or swallows connections is out at the first failure,
# however late its EndpointSlice is, and back as soon as it accepts one. On another server the request is tried again.
_CHECK = "check inter 1s downinter 500ms fall 1 rise 1 observe layer4 error-limit 1 on-error mark-down"
_PROTOCOL_OPTIONS: dict[Protocol, str] = {"http": "", "grpc": " proto h2"}

_DEFAULTS = """\
defaults http
    mode http
    log global
    option dontlog-normal
    option log-separate-errors
    log-format "%ci %f %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %tsc %rc %HM %HPO"
    option idle-close-on-response
    option abortonclose
    option redispatch 1
    retries 3
    retry-on conn-failure
    timeout connect 1s
    timeout check 1s
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 60s
    http-error status 400 content-type application/json string '{"error": "the router does not understand the request"}'
    http-error status 408 content-type application/json string '{"error": "the request did not arrive in time"}'
    http-error status 500 content-type application/json string '{"error": "the router failed"}'
    http-error status 502 content-type application/json string '{"error": "the pod of the model went away before it had answered"}'
    http-error status 503 content-type application/json string '{"error": "no pod of this model can be reached"}' hdr retry-after 1
    http-error status 504 content-type application/json string '{"error": "the model did not answer in time"}'

# HTTP's status stays, so that it is counted; gRPC's clients take it or their own words beside it.
defaults grpc from http
    http-error status 502 hdr grpc-status 14 hdr grpc-message 'the pod of the model went away before it had answered'
    http-error status 503 hdr grpc-status 14 hdr grpc-message 'no pod of this model can be reached'
    http-error status 504 hdr grpc-status 4 hdr grpc-message 'the model did not answer in time'
    http-after-response set-header content-type application/grpc if { status ge 500 }
"""


def structure(table: Table, layout: Layout) -> str:
    """Changes when HAProxy needs a reload, and only then."""
    nowhere = {backend: frozenset[Address]() for backend in pools.make(table, {})}
    return hashlib.sha256(_text(table, nowhere, layout, "").encode()).hexdigest()[:16]


def render(table: Table, servers: Pools, layout: Layout) -> str:
    return _text(table, servers, layout, structure(table, layout))


def render_map(table: Table) -> str:
    return "".join(f"{name} {split.encode(model)}\n" for name, model in sorted(table.models.items()))


def server_options(protocol: Protocol) -> str:
    """All of them each time: a server that is added at run time takes no `default-server`."""
    return f"{_CHECK}{_PROTOCOL_OPTIONS[protocol]}"


def _text(table: Table, servers: Pools, layout: Layout, version: str) -> str:
    models = sorted(table.models.items())
    sections = [
        _global(models, layout, version),
        [_DEFAULTS],
        _section("frontend metrics from http", _metrics(layout)),
        *(_section(f"frontend {name} from http", _frontend(name, model, layout)) for name, model in models),
        *(
            _section(
                f"backend {backend.name} from {backend.protocol}",
                _backend(table.models[backend.model], backend, addresses),
            )
            for backend, addresses in servers.items()
        ),
    ]
    return "\n".join(chain.from_iterable(sections)) + "\n"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [title, *(f"    {line}" for line in lines), ""]


def _global(models: list[tuple[str, Model]], layout: Layout, version: str) -> list[str]:
    longest = max((model.timeout_seconds for _, model in models), default=0)
    lines = [
        f"description {version}",
        f"maxconn {layout.max_connections}",
        f"nbthread {layout.threads}",
        # A node that allows fewer open files gets fewer connections, not a router that does not start.
        "no strict-limits",
        # An old worker ends at last when all that it can be waiting for has had its time.
        f"hard-stop-after {longest + _STOP_SLACK_SECONDS}s",
        f"stats socket {layout.admin_socket} mode 600 level admin expose-fd listeners",
        "stats timeout 10s",
        "log stdout format raw daemon notice",
    ]
    return _section("global", lines)


def _metrics(layout: Layout) -> list[str]:
    return [
        layout.listen(layout.metrics_port),
        "monitor-uri /healthz",
        "http-request use-service prometheus-exporter if { path /metrics }",
        "http-request return status 404",
    ]


def _frontend(name: str, model: Model, layout: Layout) -> list[str]:
    return [
        layout.listen(model.port),
        # One model's callers can't take all of the router's connections.
        f"maxconn {layout.max_connections // 2}",
        f"timeout client {model.timeout_seconds + _SLACK_SECONDS}s",
        "http-request del-header x-moorage- -m beg",
        # The only look at the map: two could see two different splits.
        f"http-request set-var(txn.row) str({name}),map_str({layout.map_file})",
        *_key(model.stickiness),
        *_buckets(model),
        *_choice(model),
        *_destination(name, model),
    ]


def _key(stickiness: Stickiness | None) -> list[str]:
    if stickiness is None:
        return []
    if stickiness.header:
        return [f"http-request set-var(txn.key) req.fhdr({stickiness.header})"]
    cookie = f"{stickiness.cookie}=%[var(txn.new)]; Path=/; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Lax"
    return [
        f"http-request set-var(txn.key) req.cook({stickiness.cookie})",
        "http-request set-var(txn.new) uuid() if !{ var(txn.key) -m len gt 0 }",
        "http-request set-var(txn.key) var(txn.new) if { var(txn.new) -m found }",
        f'http-after-response add-header set-cookie "{cookie}" if {{ var(txn.new) -m found }}',
    ]


def _buckets(model: Model) -> list[str]:
    """Two independent ones: a guinea pig of the arms must not be one of every canary, too."""
    wanted = {"first": split.SALT} if model.arms else {}
    return [
        line for variable, salt in {**wanted, "second": split.CANARY_SALT}.items() for line in _bucket(variable, salt)
    ]


def _bucket(variable: str, salt: int) -> list[str]:
    target = f"http-request set-var(txn.{variable})"
    return [
        f"{target} rand({BUCKETS})",
        f"{target} {_field(salt)},concat(:,txn.key),xxh32,mod({BUCKETS}) if {{ var(txn.key) -m len gt 0 }}",
    ]


def _choice(model: Model) -> list[str]:
    """`txn.role`: the first match, else the arm whose range holds the first bucket, else perhaps the canary; else it stays unset."""
    lines = []
    for index, (matched, condition) in enumerate(model.conditions()):
        lines.append(f"acl match{index} {_test(condition)}")
        lines.append(_set_role(f"{matched}{MATCH_SUFFIX}", f"match{index}"))
    for index, arm in enumerate(model.arms):
        lines.append(f"http-request set-var(txn.upper{index}) {_field(split.upper_field(index))},add(0)")
        lines.append(_set_role(arm.name, f"{{ var(txn.first),sub(txn.upper{index}) lt 0 }}"))
    lines.append(f"http-request set-var(txn.weight) {_field(split.CANARY_WEIGHT)},add(0)")
    lines.append(_set_role(pools.CANARY, "{ var(txn.second),sub(txn.weight) lt 0 }"))
    return lines


def _set_role(role: str, condition: str) -> str:
    return f"http-request set-var(txn.role) str({role}) if !{{ var(txn.role) -m found }} {condition}"


def _test(condition: Condition) -> str:
    source = f"req.fhdr({condition.header})" if condition.header else f"req.cook({condition.cookie})"
    return f"{source} -m str -- {quote(condition.value)}"


def _destination(name: str, model: Model) -> list[str]:
    """An arm without a usable server is answered by stable, in a backend of its own, so that nobody counts it for the arm."""
    lines = ["acl grpc req.hdr(content-type) -m beg -i application/grpc"]
    chosen = [role for role in pools.roles(model) if role not in (pools.STABLE, pools.FALLBACK)]
    for role in chosen:
        for protocol, is_it in (("grpc", "grpc"), ("http", "!grpc")):
            here = f"if {is_it} {{ var(txn.role) -m str {role} }}"
            lines.append(
                f"use_backend {name}:{pools.FALLBACK}:{protocol} {here} {{ nbsrv({name}:{role}:{protocol}) eq 0 }}"
            )
            lines.append(f"use_backend {name}:{role}:{protocol} {here}")
    return [*lines, f"use_backend {name}:{pools.STABLE}:grpc if grpc", f"default_backend {name}:{pools.STABLE}:http"]


def _backend(model: Model, backend: Backend, servers: frozenset[Address]) -> list[str]:
    arm = pools.arm_of(backend.role)
    mark = arm if arm == backend.role else f"{arm}/match"
    options = server_options(backend.protocol)
    return [
        "balance leastconn",
        f"timeout server {model.timeout_seconds}s",
        f"http-request set-header x-moorage-arm {mark}",
        *(_shadow() if backend.role == pools.STABLE else []),
        *(f"server {address.name} {address.target} {options}" for address in sorted(servers)),
    ]


def _shadow() -> list[str]:
    header = f"http-request set-header x-moorage-shadow %[{_field(split.SHADOW_REVISION)}]"
    return [
        f"http-request set-var(txn.shadow) {_field(split.SHADOW_WEIGHT)},add(0)",
        f"{header} if {{ rand({BUCKETS}),sub(txn.shadow) lt 0 }}",
    ]


def _field(number: int) -> str:
    return f"var(txn.row),field({number},:)"


def quote(text: str) -> str:
    """One word for HAProxy: within single quotes nothing has a meaning but the quote itself."""
    return "'" + text.replace("'", "'\\''") + "'"
