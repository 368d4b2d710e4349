"""Start a SuperLink and SuperNodes on this machine, run a Flower app on them, and end them all again.

    python deploy/run_local.py --nodes 4 --byzantine 0=bitflip --run-config 'rounds=3 strategy="median"'
    python deploy/run_local.py --nodes 4 --tls --run-config 'rounds=3'

Everything listens on 127.0.0.1 only, on free ports, and works with Flower's gRPC (1.26) and HTTP (1.41)
deployments. The commands that are run are printed; they are what docs/deploy.md explains.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from certificates import Keys, at_least_one, make_keys

from byzflower.flower.compat import deploys_over_grpc

_HOST = "127.0.0.1"
_NAME = "local-deployment"
_BIN = Path(sys.executable).parent
ENDED = "finished"


class DeploymentError(RuntimeError):
    """A command of Flower's failed, or took too long; the message has the end of its output."""


class LocalDeployment:
    """A SuperLink and its SuperNodes, each in a process group of its own; leaving the context ends them."""

    def __init__(
        self,
        folder: Path,
        keys: Keys | None = None,
        environment: Mapping[str, str] | None = None,
        show: bool = False,
    ) -> None:
        """Prepare a deployment; nothing is started yet.

        Args:
            folder: for logs, Flower's own files and the SuperLink's state.
            keys: certificates and SuperNode keys; without them nothing is encrypted.
            environment: more environment variables for all processes.
            show: print the commands.
        """
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keys = keys
        self._show = show
        home = self.folder / "flwr"
        home.mkdir(exist_ok=True)
        self._environment = {**os.environ, "FLWR_HOME": str(home), **(environment or {})}
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.superlink: subprocess.Popen[bytes] | None = None
        self._grpc = deploys_over_grpc()
        self._ports = free_ports(3)
        trust = {"root-certificates": str(keys.ca)} if keys else {"insecure": True}
        control = {"address": f"{_HOST}:{self._ports[2] if self._grpc else self._ports[0]}", **trust}
        lines = [f"{key} = {json.dumps(value)}" for key, value in control.items()]
        (home / "config.toml").write_text("\n".join([f"[superlink.{_NAME}]", *lines, ""]))

    @property
    def fleet_address(self) -> str:
        """Where SuperNodes connect."""
        return f"{_HOST}:{self._ports[1] if self._grpc else self._ports[0]}"

    # -- processes -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start_superlink()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start_superlink(self, timeout: float = 60.0) -> None:
        """Start the SuperLink and wait until it listens."""
        app_io, fleet, control = (f"{_HOST}:{port}" for port in self._ports)
        if self._grpc:
            addresses = ["--serverappio-api-address", app_io, "--fleet-api-address", fleet]
            addresses += ["--control-api-address", control]
        else:
            addresses = ["--host", _HOST, "--port", str(self._ports[0])]
            addresses += ["--disable-runtime-dependency-installation"]
        safety = ["--insecure"]
        if self.keys:
            safety = ["--ssl-ca-certfile", str(self.keys.ca), "--ssl-certfile", str(self.keys.certificate)]
            safety += ["--ssl-keyfile", str(self.keys.key), "--enable-supernode-auth"]
        self.superlink = self._start("superlink", ["flower-superlink", *addresses, *safety])
        for port in self._ports if self._grpc else self._ports[:1]:
            self._await_port(self.superlink, port, timeout)

    def start_node(self, node_config: Mapping[str, object], *, register: bool = True) -> int:
        """Start a SuperNode; returns its position in `nodes`.

        Args:
            node_config: what the clients find in `Context.node_config`.
            register: where keys are used, make this node's known to the SuperLink before.
        """
        number = len(self.nodes)
        own = str(free_ports(1)[0])
        port = ["--clientappio-api-address", f"{_HOST}:{own}"] if self._grpc else ["--port", own]
        safety = ["--insecure"]
        if self.keys:
            key = self.keys.nodes[number]
            if register:
                self.flwr("supernode", "register", f"{key}.pub", _NAME)
            safety = ["--root-certificates", str(self.keys.ca), "--auth-supernode-private-key", str(key)]
        command = ["flower-supernode", "--superlink", self.fleet_address, *port, *safety]
        command += ["--node-config", " ".join(f"{k}={json.dumps(v)}" for k, v in node_config.items())]
        self.nodes.append(self._start(f"node-{number}", command))
        return number

    def start_nodes(self, configs: Sequence[Mapping[str, object]]) -> None:
        """Start a SuperNode for each configuration, as partition 0, 1, ... of all of them."""
        for i, own in enumerate(configs):
            self.start_node({"partition-id": i, "num-partitions": len(configs), **own})

    def kill(self, process: "subprocess.Popen[bytes]", with_signal: int = signal.SIGKILL) -> None:
        """Signal a process and whatever it started."""
        try:
            os.killpg(process.pid, with_signal)
        except ProcessLookupError:
            return

    def close(self, patience: float = 5.0) -> None:
        """End everything: SuperNodes first, then the SuperLink; by force what has not ended in time."""
        for group in (self.nodes, [self.superlink] if self.superlink else []):
            for process in group:
                self.kill(process, signal.SIGTERM)
            deadline = time.monotonic() + patience
            for process in group:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
                self.kill(process)  # what it started may have outlived it
                process.wait()

    def _start(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        if self._show:
            print("$", shlex.join(command), flush=True)
        with open(self.log(name), "ab") as log:
            return subprocess.Popen(
                [str(_BIN / command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Where "superlink" or "node-0" writes."""
        return self.folder / f"{name}.log"

    def _await_port(self, process: "subprocess.Popen[bytes]", port: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((_HOST, port)) == 0:
                    return
            time.sleep(0.1)
        raise DeploymentError(f"nothing listens on port {port}:\n{tail(self.log('superlink'))}")

    # -- runs ------------------------------------------------------------------------------------------

    def flwr(self, *arguments: str, timeout: float = 120.0) -> str:
        """Run ``flwr``, Flower's command line, and return what it prints.

        Raises:
            DeploymentError: it failed.
        """
        if self._show:
            print("$", shlex.join(["flwr", *arguments]), flush=True)
        try:
            done = subprocess.run(
                [str(_BIN / "flwr"), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=self._environment,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise DeploymentError(f"flwr {arguments[0]} did not end within {timeout:.0f} s") from error
        if done.returncode:
            raise DeploymentError(f"flwr {arguments[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def start_run(self, app: Path, run_config: Mapping[str, object], more: str = "") -> str:
        """Submit an app; returns the run's id.

        Args:
            app: its folder.
            run_config: what to change in its run configuration.
            more: further changes, as ``flwr run --run-config`` takes them; they win.
        """
        given = [f"{key}={json.dumps(value)}" for key, value in run_config.items()]
        options = [f"--run-config={changes}" for changes in (" ".join(given), more) if changes]
        said = parse_json(self.flwr("run", str(app), _NAME, *options, "--format", "json"))
        if "run-id" not in said:
            raise DeploymentError(f"flwr run failed:\n{said.get('error-message', said)}")
        return str(said["run-id"])

    def status(self, run_id: str) -> str:
        """What Flower says of a run: "running", "finished:completed", "finished:failed", ..."""
        said = parse_json(self.flwr("list", _NAME, "--run-id", run_id, "--format", "json"))
        return str(said["runs"][0]["status"])

    def wait(self, run_id: str, timeout: float) -> str:
        """Wait until a run has ended; returns its status.

        Raises:
            DeploymentError: it has not ended in time, or the SuperLink has ended before it.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.superlink is None or self.superlink.poll() is not None:
                raise DeploymentError(f"the SuperLink ended:\n{tail(self.log('superlink'))}")
            status = self.status(run_id)
            if status.startswith(ENDED):
                return status
            time.sleep(4)  # each query costs seconds of CPU time
        raise DeploymentError(f"the run did not end in {timeout:.0f} s:\n{tail(self.log('superlink'))}")

    def run(self, app: Path, run_config: Mapping[str, object], timeout: float) -> None:
        """Run an app until it ends.

        Raises:
            DeploymentError: it failed, or did not end in time.
        """
        status = self.wait(self.start_run(app, run_config), timeout)
        if not status.endswith("completed"):
            raise DeploymentError(f"the run is {status}:\n{tail(self.log('superlink'))}")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for own in sockets:
            own.bind((_HOST, 0))
        return [int(own.getsockname()[1]) for own in sockets]
    finally:
        for own in sockets:
            own.close()


def parse_json(output: str) -> Any:
    """The JSON object in the output of a command, which may say other things before it."""
    start = output.find("{")
    if start < 0:
        raise DeploymentError(f"no JSON in:\n{output[-2000:]}")
    return json.JSONDecoder().raw_decode(output[start:])[0]


def tail(log: Path, characters: int = 4000) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-characters:] if log.is_file() else ""


def byzantine_node(text: str) -> tuple[int, dict[str, object]]:
    """A Byzantine node on the command line, and what it is started with.

    Raises:
        ArgumentTypeError: not of the form NODE=ATTACK or NODE=ATTACK:OPTIONS.
    """
    node, _, attack = text.partition("=")
    name, _, options = attack.partition(":")
    if not (node.isdecimal() and name):
        raise argparse.ArgumentTypeError(f"must be NODE=ATTACK[:OPTIONS], as 0=bitflip, got {text!r}")
    return int(node), {"byzantine": True, "attack": name, "attack-options": options}


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does: what it started is ended, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def main() -> None:
    """Run the app of a folder on a deployment of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--app", type=Path, default=Path(__file__).parents[1], help="folder of the app")
    parser.add_argument("--nodes", type=at_least_one, default=4)
    parser.add_argument(
        "--byzantine",
        type=byzantine_node,
        action="append",
        default=[],
        metavar="NODE=ATTACK[:OPTIONS]",
        help="may be repeated",
    )
    parser.add_argument(
        "--tls", action="store_true", help="encrypt, and admit only SuperNodes with known keys"
    )
    parser.add_argument("--run-config", default="", help="as flwr run takes it")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds until the run is given up")
    arguments = parser.parse_args()
    configs: list[dict[str, object]] = [{} for _ in range(arguments.nodes)]
    for node, own in arguments.byzantine:
        if node >= arguments.nodes:
            parser.error(f"argument --byzantine: there is no node {node} of {arguments.nodes}, from 0")
        configs[node] |= own
    try:
        keys = make_keys(Path(__file__).parent / "keys", arguments.nodes) if arguments.tls else None
    except (OSError, ValueError) as error:
        parser.error(str(error))
    end_on_sigterm()
    with (
        tempfile.TemporaryDirectory(prefix="deployment-") as folder,
        LocalDeployment(Path(folder), keys, show=True) as deployment,
    ):
        deployment.start_nodes(configs)
        options = {"engine": "deployment", "clients": arguments.nodes, "out": os.path.abspath("runs")}
        options |= {"byzantine": len(arguments.byzantine), "attack": "none"}
        run = deployment.start_run(arguments.app, options, arguments.run_config)
        status = deployment.wait(run, arguments.timeout)
        rounds = [line for line in deployment.log("superlink").read_text().splitlines() if "round" in line]
        print("\n".join(rounds if status.endswith("completed") else [tail(deployment.log("superlink"))]))
        print(status)
    raise SystemExit(0 if status.endswith("completed") else 1)


if __name__ == "__main__":
    main()
