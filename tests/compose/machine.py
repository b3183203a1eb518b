"""What the compose tests need of a machine: Docker, and images. Made where it is missing, taken down again.

A daemon that answers is used. Where none does, and this is root on a Debian-like system, the packages are installed and
a daemon of our own is started in a temporary folder. Base images are made from the system's packages, not pulled, where
BASE_IMAGE and KAFKA_IMAGE name none.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bus.stack.jars import fetch_jars

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("docker.io", "docker-compose", "debootstrap", "iptables")
TOOLS = ("docker", "dockerd", "debootstrap", "iptables")
IN_IMAGE = "python3,python3-venv,python3-pip,openjdk-17-jre-headless,ca-certificates"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


class Missing(Exception):
    """Why the tests cannot run here."""


def run(*words: object, timeout: float = 600, check: bool = True, **more: object) -> subprocess.CompletedProcess:
    """A command; its output is kept, and shown where it fails."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **more)
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done


def answers(*words: str) -> bool:
    """Whether a command is there and ends well."""
    try:
        return run(*words, check=False, timeout=60).returncode == 0
    except OSError:
        return False


class Machine:
    """Docker on this machine, for the length of a test run."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sealbus-compose-"))
        self.compose: list[str] = []
        self._daemon: subprocess.Popen | None = None

    def start(self) -> None:
        """Raise Missing with the reason where Docker cannot be had."""
        if not answers("docker", "info"):
            self._install()
            self._start_daemon()
        for words in (["docker", "compose"], ["docker-compose"]):
            if answers(*words, "version"):
                self.compose = words
                return
        raise Missing("neither `docker compose` nor docker-compose is there")

    def _install(self) -> None:
        if os.geteuid() != 0:
            raise Missing("no Docker daemon answers, and only root can start one")
        if all(shutil.which(tool) for tool in TOOLS):
            return
        if shutil.which("apt-get") is None:
            raise Missing("no Docker, and no apt to install it with")
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            if (done := run("apt-get", "-q", *words, check=False, env=environ)).returncode:
                raise Missing(f"apt-get {words[0]} failed: {done.stderr.strip()[-200:]}")

    def _start_daemon(self) -> None:
        socket = f"unix://{self.folder}/docker.sock"
        command = ["dockerd", "--data-root", "data", "--exec-root", "exec", "--pidfile", "pid", "-H", socket]
        command = [str(self.folder / word) if word in ("data", "exec", "pid") else word for word in command]
        with (self.folder / "dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        os.environ["DOCKER_HOST"] = socket
        deadline = time.monotonic() + 60
        while not answers("docker", "info"):
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                last = (self.folder / "dockerd.log").read_text().strip().splitlines()[-1:]
                raise Missing(f"dockerd does not run here: {last}")
            time.sleep(0.2)

    def base_image(self) -> str:
        """Python and Java on the system's own release."""
        if named := os.environ.get("BASE_IMAGE"):
            return named
        if shutil.which("debootstrap") is None:
            raise Missing("debootstrap is not installed, and BASE_IMAGE names no image")
        root = self.folder / "root"
        run("debootstrap", "--variant=minbase", f"--include={IN_IMAGE}", codename(), root, mirror())
        shutil.copy(BUNDLE, root / BUNDLE.relative_to("/"))
        run("sh", "-c", 'tar -C "$0" -c . | docker import - sealbus-base:local', root)
        shutil.rmtree(root)
        return "sealbus-base:local"

    def kafka_image(self, base: str) -> str:
        """The jars of the local stack where the official image has them."""
        if named := os.environ.get("KAFKA_IMAGE"):
            return named
        context = self.folder / "kafka"
        shutil.copytree(fetch_jars(), context / "libs", ignore=shutil.ignore_patterns("tmp*"))
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY libs /opt/kafka/libs\n")
        run("docker", "build", "-t", "sealbus-kafka:local", context)
        return "sealbus-kafka:local"

    def prometheus_image(self, base: str) -> str:
        """The system's own Prometheus where the official image has it, with its user and its folder."""
        if named := os.environ.get("PROMETHEUS_IMAGE"):
            return named
        context = self.folder / "prometheus"
        context.mkdir()
        (context / "Dockerfile").write_text(
            f"FROM {base}\n"
            "RUN apt-get -q update && apt-get install -yq --no-install-recommends prometheus"
            " && mkdir /prometheus && chown nobody /prometheus\n"
            "USER nobody\n"
            'ENTRYPOINT ["prometheus"]\n'
        )
        run("docker", "build", "--network", "host", "-t", "sealbus-prometheus:local", context)
        return "sealbus-prometheus:local"

    def sealbus_image(self, base: str) -> str:
        """The project's own Dockerfile."""
        run("docker", "build", "--network", "host", "--build-arg", f"BASE_IMAGE={base}", "-t", "sealbus:local", ROOT)
        return "sealbus:local"

    def stop(self) -> None:
        """End the daemon that was started here, by its id, and remove its folder.

        Its bridge and its rules in the firewall stay, as any Docker daemon leaves them.
        """
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(60)
            del os.environ["DOCKER_HOST"]
            run("umount", self.folder / "exec" / "netns" / "default", check=False)  # the daemon leaves it mounted
        shutil.rmtree(self.folder, ignore_errors=True)


def codename() -> str:
    """The release of this system."""
    lines = Path("/etc/os-release").read_text().splitlines()
    told = dict(line.split("=", 1) for line in lines if "=" in line)
    return told["VERSION_CODENAME"].strip('"')


def mirror() -> str:
    """Where this system gets its packages from, by its own apt sources."""
    told = run("apt-get", "indextargets", "--format", "$(SITE) $(CODENAME)", "Created-By: Packages").stdout
    for line in told.splitlines():
        site, _, release = line.partition(" ")
        if release == codename():
            return site
    raise Missing("apt names no source of this release")
