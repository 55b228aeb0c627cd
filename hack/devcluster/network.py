"""Addresses and the wire between the host and a node.

Clusters share 198.18.0.0/15, the range reserved for benchmarks, in eight blocks, so that several run side by side. The node's
end of the wire lives in its network namespace; when the node's last process ends, the kernel removes the namespace, and with
either end of the wire go the other and the host's routes over it. Nothing here touches the host's firewall.
"""

import dataclasses
import ipaddress
import json
import pathlib

from devcluster import console, paths

RANGE = ipaddress.IPv4Network("198.18.0.0/15")
BLOCK_BITS = 18


@dataclasses.dataclass(frozen=True)
class Block:
    index: int

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network((int(RANGE.network_address) + self.index * 2 ** (32 - BLOCK_BITS), BLOCK_BITS))

    def _part(self, offset: int, bits: int) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network((int(self.network.network_address) + offset, bits))

    @property
    def host(self) -> str:
        return str(self._part(0, 30)[1])

    @property
    def node(self) -> str:
        return str(self._part(0, 30)[2])

    @property
    def services(self) -> ipaddress.IPv4Network:
        return self._part(2**12, 20)

    @property
    def pods(self) -> ipaddress.IPv4Network:
        return self._part(2**13, 19)

    @property
    def api_service(self) -> str:
        return str(self.services[1])

    @property
    def dns(self) -> str:
        return str(self.services[10])

    @property
    def link(self) -> str:
        return f"moorage{self.index}"


BLOCKS = tuple(Block(index) for index in range(2 ** (BLOCK_BITS - RANGE.prefixlen)))


def _claims() -> pathlib.Path:
    return paths.state_root() / ".networks"


def claim(state: pathlib.Path) -> Block:
    """The block that this cluster holds already, or the first that no other holds and that the host does not route elsewhere."""
    _claims().mkdir(parents=True, exist_ok=True)
    shown = routes()
    for block in BLOCKS:
        claim_file = _claims() / str(block.index)
        if _holds(claim_file, state) or (not overlaps(block, shown) and _take(claim_file, state)):
            return block
    raise console.Failure(
        f"All {len(BLOCKS)} blocks of {RANGE} are in use, by clusters ({_claims()}) or by routes of this machine (`ip route`): "
        "delete a cluster with `hack/cluster --name NAME delete`."
    )


def _holds(claim_file: pathlib.Path, state: pathlib.Path) -> bool:
    return claim_file.is_symlink() and claim_file.readlink() == state


def _take(claim_file: pathlib.Path, state: pathlib.Path) -> bool:
    """A claim is a link to the state's folder, made in one system call; one whose folder is gone is free."""
    for _ in range(2):
        try:
            claim_file.symlink_to(state)
        except FileExistsError:
            if claim_file.exists():
                return False
            claim_file.unlink(missing_ok=True)
        else:
            return True
    return False


def routes() -> list[dict[str, str]]:
    shown: list[dict[str, str]] = json.loads(
        console.run(["ip", "-json", "-4", "route", "show", "table", "all", "type", "unicast"])
    )
    return shown


def overlaps(block: Block, routes: list[dict[str, str]]) -> bool:
    taken = (ipaddress.IPv4Network(route["dst"], strict=False) for route in routes if route["dst"] != "default")
    return any(block.network.overlaps(network) for network in taken)


def release(block: Block, state: pathlib.Path) -> None:
    claim_file = _claims() / str(block.index)
    if _holds(claim_file, state):
        claim_file.unlink()


def connect(block: Block, pid: int) -> None:
    """Lay the wire from the host's side; the node's side is `supervisor.set_up_network`."""
    console.run(["ip", "link", "add", block.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid)])
    console.run(["ip", "address", "add", f"{block.host}/30", "dev", block.link])
    console.run(["ip", "link", "set", block.link, "up"])
    for network in (block.pods, block.services):
        console.run(["ip", "route", "add", str(network), "via", block.node])


def disconnect(block: Block) -> None:
    """Remove the wire and its routes now: the kernel would too, but only some seconds after the namespace's last process."""
    wire = pathlib.Path("/sys/class/net") / block.link
    if wire.exists() and not console.succeeds(["ip", "link", "delete", block.link]) and wire.exists():
        raise console.Failure(
            f"The network device {block.link} can't be removed; `ip link delete {block.link}` may tell why."
        )
