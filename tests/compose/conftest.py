"""docker-compose.yml on a daemon of its own. Runs only when this folder is named: `make test-compose`."""

import os
from types import SimpleNamespace

import pytest

from tests.compose.machine import ROOT, Machine, Missing, run

COUNT = 40


def pytest_ignore_collect(collection_path, config):
    """A plain `pytest` or `make test` passes this folder by: it needs root, packages and minutes."""
    named = any("tests/compose" in str(word) for word in config.invocation_params.args)
    return None if named else True


@pytest.fixture(scope="session")
def machine():
    """Docker and the images, or a skip that says why not."""
    made = Machine()
    try:
        made.start()
        base = made.base_image()
        images = {"BASE_IMAGE": base, "KAFKA_IMAGE": made.kafka_image(base), "SEALBUS_IMAGE": made.sealbus_image(base)}
    except Missing as reason:
        made.stop()
        pytest.skip(str(reason))
    except BaseException:
        made.stop()  # the daemon is this session's own
        raise
    yield SimpleNamespace(compose=made.compose, images=images, prometheus=lambda: made.prometheus_image(base))
    made.stop()


class Project:
    """One `docker-compose up`."""

    def __init__(self, machine, name: str, files: tuple[str, ...] = ("docker-compose.yml",)) -> None:
        self.name = name
        self._environ = {**os.environ, **machine.images, "SAMPLE_COUNT": str(COUNT)}
        self._command = [*machine.compose, *(word for file in files for word in ("-f", file)), "-p", name]

    def __call__(self, *words: str, check: bool = True, timeout: float = 400):
        """A sub-command of docker-compose."""
        return run(*self._command, *words, check=check, timeout=timeout, cwd=ROOT, env=self._environ)

    def up(self) -> None:
        """Everything, until both agents are through."""
        self("up", "-d", "--no-build")
        for agent in ("publisher", "subscriber"):
            assert run("docker", "wait", self.container(agent), timeout=180).stdout.strip() == "0", self.log(agent)

    def down(self) -> None:
        self("down", "-v", "--remove-orphans")

    def container(self, service: str) -> str:
        return self("ps", "-a", "-q", service).stdout.strip()

    def log(self, service: str) -> str:
        told = run("docker", "logs", self.container(service))
        return told.stdout + told.stderr

    def python(self, service: str, code: str) -> str:
        """What ``code`` prints in a fresh container of ``service``: its user, mounts, networks and rights."""
        done = self("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", service, "-c", code)
        return done.stdout.strip()

    def inside(self, service: str, *words: str, check: bool = True):
        """A command in the running container."""
        return run("docker", "exec", self.container(service), *words, check=check)

    def address(self, service: str, network: str) -> str:
        """Its address on one network."""
        form = f'{{{{(index .NetworkSettings.Networks "{self.name}_{network}").IPAddress}}}}'
        return run("docker", "inspect", "-f", form, self.container(service)).stdout.strip()
