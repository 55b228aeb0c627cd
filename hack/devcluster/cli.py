"""The command line of hack/cluster."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from devcluster import console, node, paths, settings


def main(arguments: Sequence[str]) -> int:
    try:
        return _dispatch(_parser().parse_args(arguments))
    except console.Failure as failure:
        console.say(str(failure))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/cluster")
    parser.add_argument("--name", default="moorage")
    parser.add_argument("--state", type=pathlib.Path)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up")
    up.add_argument("--audit", action="store_true", default=None)
    up.add_argument("--gpus", type=int)
    commands.add_parser("down")
    commands.add_parser("delete")
    commands.add_parser("kubeconfig")
    load = commands.add_parser("load-image")
    load.add_argument("image")
    return parser


def _dispatch(options: argparse.Namespace) -> int:
    name = settings.check_name(options.name)
    state = paths.State((options.state or paths.state_root() / name).resolve())
    cluster = node.Node(state, name)
    match options.command:
        case "up":
            cluster.up(audit=options.audit, gpus=options.gpus)
        case "down":
            cluster.down()
        case "delete":
            cluster.delete()
        case "kubeconfig":
            sys.stdout.write(f"{state.kubeconfig}\n")
        case "load-image":
            sys.stdout.write(cluster.load_image(pathlib.Path(options.image)) + "\n")
    return 0
