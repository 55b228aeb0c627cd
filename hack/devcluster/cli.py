"""The command line of hack/cluster: parses, picks the cluster, calls one method, prints what it returns."""

import argparse
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from devcluster import console, existing, gateway, kwok, network, node, outage, paths, providers, settings, tools

Command = Callable[[providers.Cluster, argparse.Namespace], int]
DEFAULT = "moorage"


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        options.name, options.state = _whose(options)
        cluster = providers.choose(options.state, name=options.name, context=options.context, provider=options.provider)
        command: Command = options.run
        return command(cluster, options)
    except console.Failure as failure:
        console.say(str(failure))
        return 1
    except KeyboardInterrupt:
        console.say("Interrupted; the same command again goes on.")
        return 130


def _whose(options: argparse.Namespace) -> tuple[str, paths.State]:
    """The cluster that was named; else the one of ours whose environment this shell has; else the default."""
    exported = providers.exported()
    if exported and not (options.name or options.state or options.context):
        return exported
    name = settings.check_name(options.name or DEFAULT)
    return name, paths.State((options.state or paths.state_root() / name).absolute())


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="hack/cluster", description="A disposable Kubernetes cluster: made, used, removed."
    )
    top.add_argument(
        "--name", help=f"several clusters live side by side (default: the one of KUBECONFIG, else {DEFAULT})"
    )
    top.add_argument("--context", help="use this context of your kubeconfig instead; it is never stopped or deleted")
    top.add_argument(
        "--provider", choices=["kind", "node"], help="what makes a new cluster (default: kind where it can run)"
    )
    top.add_argument(
        "--state", type=pathlib.Path, metavar="DIR", help=f"its files (default: {paths.state_root()}/NAME)"
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    up = add("up", _up, "start it, made first if there is none, and wait until it is ready")
    up.add_argument(
        "--audit", action=argparse.BooleanOptionalAction, help="write an audit log of the API (`logs audit`)"
    )
    up.add_argument("--gpus", type=_count, metavar="N", help="advertise N fake nvidia.com/gpu on the node")
    add("down", _down, "stop it; `up` starts it again with all it had")
    add("delete", _delete, "stop it and remove everything of it")
    add("status", _status, "what runs, its versions, where its logs are")
    add("kubeconfig", _kubeconfig, "print the path of its kubeconfig")
    add("env", _env, 'print what a shell needs to use it: eval "$(hack/cluster env)"')
    load = add("load-image", _load_image, "give its nodes an image")
    load.add_argument(
        "image",
        help="a docker-archive or OCI archive (- is standard input), or the name of an image of the Docker engine",
    )
    shell = add("shell", _shell, "open a shell that uses it, or run a command: shell -- kubectl get pods")
    shell.add_argument("program", nargs="*", metavar="-- COMMAND", help="a command to run instead of a shell")
    logs = add("logs", _logs, "print a component's log")
    logs.add_argument("component", help="as `status` lists them")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    logs.add_argument("--tail", type=int, metavar="N", help="only the last N lines")
    disturb = add("disturb", _disturb, "for some seconds, stop a component or cut pods off the API server")
    disturb.add_argument("what", help=f"a component as `status` lists them, or {outage.PODS_TO_API}")
    disturb.add_argument("--seconds", type=float, required=True)
    fake = add("kwok", _kwok, "have N fake nodes, whose pods become ready without running")
    fake.add_argument("--nodes", type=_count, required=True, metavar="N", help="0 removes them")
    add("gateway", _gateway, "have the Gateway API, by Traefik: its GatewayClass is `traefik`")
    return top


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1000")
    return int(text)


def _up(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    begin = time.monotonic()
    cluster.up(audit=options.audit, gpus=options.gpus)
    this = same_cluster(options.name, options.state, options.context)
    console.say(f'Ready after {time.monotonic() - begin:.0f} s. To use it: eval "$({this} env)", or {this} shell')
    return 0


def same_cluster(name: str, state: paths.State, context: str | None) -> str:
    """hack/cluster with the options by which any shell means the same cluster."""
    if context:
        return f"hack/cluster --context {shlex.quote(context)}"
    words = ["hack/cluster"]
    if name != DEFAULT:
        words += ["--name", name]
    if state.folder != paths.state_root() / name:
        words += ["--state", shlex.quote(str(state.folder))]
    return " ".join(words)


def _down(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    cluster.down()
    return 0


def _delete(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    cluster.delete()
    return 0


def _status(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    print("\n".join(cluster.status()))
    return 0


def _kubeconfig(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    print(cluster.kubeconfig())
    return 0


def _variables(cluster: providers.Cluster) -> dict[str, str]:
    """What programs need to use the cluster; the way to it leads through no proxy."""
    tools.ensure(*cluster.clients())
    found = {"PATH": tools.search_path(*cluster.clients()), "KUBECONFIG": str(cluster.kubeconfig())}
    if any(name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name in os.environ):
        direct = os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")).split(",")
        addresses = str(network.RANGE)
        excepted = ",".join([*(each for each in direct if each and each != addresses), addresses])
        found |= {"NO_PROXY": excepted, "no_proxy": excepted}
    return found


def _env(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    for name, value in _variables(cluster).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _load_image(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    what = "the image on standard input" if options.image == "-" else options.image
    with console.step(f"load {what}"):
        loaded = cluster.load_image(options.image)
    print(loaded)
    return 0


def _shell(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    program = options.program or [os.environ.get("SHELL", "/bin/sh")]
    return subprocess.run(program, env=os.environ | _variables(cluster), check=False).returncode


def _logs(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    files = cluster.log_files()
    if options.component not in files:
        raise console.Failure(f"There is no component {options.component!r}; there are {', '.join(files)}.")
    path = files[options.component]
    if not path.exists():
        raise console.Failure(f"{options.component} has written no log yet: {path}")
    sys.stdout.flush()
    lines = "+1" if options.tail is None else str(options.tail)
    return subprocess.run(["tail", "-n", lines, *(["-f"] if options.follow else []), str(path)], check=False).returncode


def _disturb(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    if not isinstance(cluster, node.Node):
        raise console.Failure(
            f"Only a node that hack/cluster runs itself can be disturbed, and {options.name} is none."
        )
    if not 0 < options.seconds <= outage.MOST_SECONDS:
        raise console.Failure(f"--seconds is at most {outage.MOST_SECONDS:.0f}.")
    cluster.disturb(options.what, options.seconds)
    return 0


def _gateway(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    gateway.install(cluster)
    return 0


def _kwok(cluster: providers.Cluster, options: argparse.Namespace) -> int:
    if isinstance(cluster, existing.Existing):
        raise console.Failure(f"Fake nodes are for clusters made by hack/cluster; {cluster.name} is yours.")
    kwok.set_nodes(options.state, cluster.kubeconfig(), tools.search_path(*cluster.clients()), options.nodes)
    return 0
