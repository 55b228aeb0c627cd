"""A cluster that the user named by context or KUBECONFIG. It is used and never changed, stopped or deleted from here."""

import os
import pathlib

from devcluster import console, kube, paths, tools


class Existing:
    def __init__(self, kubeconfig: str | None, context: str | None) -> None:
        self.source = kubeconfig or str(pathlib.Path.home() / ".kube/config")
        self.context = context
        self.name = f"context {context}" if context else f"KUBECONFIG={self.source}"

    def up(self, *, audit: bool | None, gpus: int | None) -> None:
        if audit or gpus:
            console.say(f"--audit and --gpus change nothing here: {self.name} is a cluster of yours.")
        tools.ensure(*self.clients())
        if not kube.Kube(self.kubeconfig(), tools.search_path(*self.clients())).answers():
            raise console.Failure(
                f"The cluster of {self.name} does not answer. Start it, or drop --context and unset KUBECONFIG to have one made."
            )

    def down(self) -> None:
        raise console.Failure(f"{self.name} was not made by hack/cluster, so hack/cluster does not stop it.")

    def delete(self) -> None:
        raise console.Failure(f"{self.name} was not made by hack/cluster, so hack/cluster does not delete it.")

    def kubeconfig(self) -> pathlib.Path:
        """The user's file; for a named context a copy of just that, since a file is all that other programs are given."""
        if not self.context:
            return pathlib.Path(self.source)
        copy = paths.state_root() / ".contexts" / self.context.replace("/", "_") / "config"
        environment = os.environ | {"KUBECONFIG": self.source, "PATH": tools.search_path(*self.clients())}
        command = ["kubectl", "config", "view", "--minify", "--flatten", "--context", self.context]
        config = console.run(command, env=environment)
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        copy.touch(mode=0o600)
        copy.write_text(config)
        return copy

    def clients(self) -> tuple[tools.Tool, ...]:
        return tools.absent_clients()

    def load_image(self, image: str) -> str:
        raise console.Failure(f"{self.name} pulls its images: push {image} to a registry that it reaches.")

    def own_image(self, tool: tools.Tool, *, public: str) -> str:
        return public

    def status(self) -> list[str]:
        answers = kube.Kube(self.kubeconfig(), tools.search_path(*self.clients())).answers()
        return [f"{self.name}: a cluster of yours, {'answers' if answers else 'does not answer'}"]

    def log_files(self) -> dict[str, pathlib.Path]:
        raise console.Failure(f"The logs of {self.name} are where it keeps them; hack/cluster has none.")
