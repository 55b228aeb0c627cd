"""Process 1 of a node's namespaces: prepares mounts and network, starts every component, reaps what they orphan.

`node.start` runs it as `python -m devcluster.supervisor STATE TOOLS`. It never restarts a component: when one ends, the reason is
written to the state's failure.txt and this process ends too, which makes the kernel end everything else and take the namespaces apart.
"""

import os
import pathlib
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

from devcluster import components, console, network, paths, settings

STATE = pathlib.Path("/run/node")
WIRE_SECONDS = 20.0


def main(state: str, tools: str) -> None:
    enter_mounts(state, tools)
    loaded = settings.load(paths.State(STATE))
    if loaded is None:
        raise console.Failure(f"{state} holds no cluster.")
    socket.sethostname(loaded.name)
    set_up_network(network.Block(loaded.block))
    Supervisor(loaded).run()


def enter_mounts(state: str, tools: str) -> None:
    """Hide the host's runtime, log and library folders behind the node's own, so that nothing it writes there reaches the host."""
    handles = {name: os.open(path, os.O_PATH | os.O_DIRECTORY) for name, path in (("node", state), ("tools", tools))}
    _call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name, handle in handles.items():
        pathlib.Path("/run", name).mkdir()
        _call("mount", "--bind", f"/proc/self/fd/{handle}", f"/run/{name}", pass_fds=(handle,))
        os.close(handle)
    for name in ("lib", "log"):
        (STATE / "var" / name).mkdir(parents=True, exist_ok=True)
        _call("mount", "--bind", str(STATE / "var" / name), f"/var/{name}")


def set_up_network(block: network.Block) -> None:
    """The node's end of the wire. Without a default route nothing can leave, except to the host."""
    deadline = time.monotonic() + WIRE_SECONDS
    while "eth0" not in dict(socket.if_nameindex()).values():
        if time.monotonic() > deadline:
            raise console.Failure("The host did not connect the node's network.")
        time.sleep(0.01)
    _call("ip", "link", "set", "lo", "up")
    _call("ip", "address", "add", f"{block.node}/30", "dev", "eth0")
    _call("ip", "link", "set", "eth0", "up")
    # Services need a route for kube-proxy to see their packets and rewrite them. A bridge without ports swallows the rest.
    _call("ip", "link", "add", "services", "type", "bridge")
    _call("ip", "link", "set", "services", "up")
    _call("ip", "route", "add", str(block.services), "dev", "services")
    for name in ("ip_forward", "conf/all/forwarding"):
        pathlib.Path("/proc/sys/net/ipv4", name).write_text("1")
    # A pod's packets to a Service on the same bridge must pass kube-proxy's rules too.
    pathlib.Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")


def _call(*command: str, pass_fds: tuple[int, ...] = ()) -> None:
    subprocess.run(command, check=True, pass_fds=pass_fds)


class Supervisor:
    def __init__(self, cluster: settings.Settings) -> None:
        self.cluster = cluster
        self.running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self.api_ready = ssl.create_default_context(cafile=str(STATE / "pki/ca.crt"))

    def run(self) -> None:
        for component in components.first(self.cluster):
            self.start(component)
        while not self.api_answers():
            self.reap(os.WNOHANG)
            time.sleep(0.1)
        for component in components.after_api(self.cluster):
            self.start(component)
        while True:
            self.reap(0)

    def start(self, component: components.Component) -> None:
        path = STATE / "log" / f"{component.name}.log"
        if path.exists():
            path.rename(path.with_suffix(".previous.log"))
        with path.open("wb") as log:
            process = subprocess.Popen(component.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        self.running[process.pid] = (component.name, process)

    def reap(self, options: int) -> None:
        """Collect one ended process: a container's orphan means nothing, a component means the end."""
        pid, status = os.waitpid(-1, options)
        if pid in self.running:
            self.give_up(self.running[pid][0], os.waitstatus_to_exitcode(status))

    def give_up(self, name: str, code: int) -> None:
        how = f"exited with {code}" if code >= 0 else f"was ended by signal {-code}"
        log = (STATE / "log" / f"{name}.log").read_text(errors="replace")
        (STATE / "failure.txt").write_text(
            f"{name} {how}, so the node was stopped. Its last log lines:\n{console.last_lines(log)}\n"
        )
        sys.exit(1)

    def api_answers(self) -> bool:
        """/readyz is open to everyone, but only once the default roles exist: just what the other components need."""
        try:
            with urllib.request.urlopen("https://127.0.0.1:6443/readyz", context=self.api_ready, timeout=5):
                return True
        except OSError:
            return False


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (console.Failure, OSError, subprocess.CalledProcessError) as error:
        folder = STATE if STATE.exists() else pathlib.Path(sys.argv[1])  # before or after the mounts
        (folder / "failure.txt").write_text(f"The node's namespaces could not be prepared: {error}\n")
        sys.exit(1)
