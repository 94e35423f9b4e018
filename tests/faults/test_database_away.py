"""A service whose PostgreSQL is away waits for it, and ends in order while it waits."""
import os

import pytest

from servers import Postgres, wait_until
from stack import Service


@pytest.fixture
def postgres(tmp_path):
    server = Postgres(str(tmp_path))
    yield server
    server.stop("immediate")


def config(tmp_path, url):
    return Service("config", "poststelle-config", str(tmp_path),
                   ["--database", url, "--key-file", f"{tmp_path}/config.key", "--fetcher-token-file", f"{tmp_path}/token"])


def waits(service):
    return "service.dependency_away" in service.process.log()


def test_it_serves_once_the_database_is_there(tmp_path, postgres):
    url = postgres.create_database("config").replace("postgres@", "postgres:hunter2@")
    postgres.stop()
    service = config(tmp_path, url)
    service.start(wait=False)
    try:
        wait_until(lambda: waits(service), what="the service to notice")
        assert service.process.running()
        postgres.start()
        wait_until(lambda: os.path.exists(f"{tmp_path}/config.port"), 60, "the service to serve")
        assert service.stop() == 0
        assert "hunter2" not in service.process.log()
    finally:
        service.kill()


def test_it_ends_in_order_while_it_waits(tmp_path, postgres):
    url = postgres.create_database("config")
    postgres.stop()
    service = config(tmp_path, url)
    service.start(wait=False)
    try:
        wait_until(lambda: waits(service), what="the service to notice")
        assert service.stop() == 0
    finally:
        service.kill()
