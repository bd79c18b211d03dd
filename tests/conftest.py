"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from sharding.common.storage import Storage

Rule = Callable[[dict[str, Any]], str | None]  # from a request (WSGI) to the status that it is refused with

REPOSITORY = Path(__file__).resolve().parent.parent
_caches = itertools.count()

# Ray runs its workers with low priority (nice 15); while other tests run, they would get hardly any time.
os.environ.setdefault("RAY_worker_niceness", "0")

# A busy machine is no defect of what a test draws.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings and published tables; named by EARSHOT_DATA, and never part of the project."""
    folder = Path(os.environ.get("EARSHOT_DATA", REPOSITORY / "../shared/data")).resolve()
    if not (folder / "metadata").is_dir():
        pytest.skip(f"no shared data: {folder} is absent (EARSHOT_DATA names it)")
    return folder


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Small published models; named by EARSHOT_MODELS, and never part of the project."""
    folder = Path(os.environ.get("EARSHOT_MODELS", REPOSITORY / "../shared/models")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared models: {folder} is absent (EARSHOT_MODELS names it)")
    return folder


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, so that none reads what another one, or the user, has left."""
    folder = tmp_path_factory.getbasetemp() / f"cache-{next(_caches)}"
    monkeypatch.setenv("EARSHOT_CACHE", str(folder))
    return folder


class S3Failures:
    """Refuses, in front of the S3 server, the requests that ``rule`` chooses."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.rule: Rule = lambda request: None

    def __call__(self, request: dict[str, Any], start_response: Any) -> Any:
        status = self.rule(request)
        if status is None:
            return self._app(request, start_response)
        request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Length", "0")])
        return [b""]


@pytest.fixture(scope="session")
def s3_failures() -> S3Failures:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    return S3Failures(DomainDispatcherApplication(create_backend_app))


@pytest.fixture(scope="session")
def s3(s3_failures: S3Failures) -> Iterator[str]:
    """A real S3 server on loopback."""
    import boto3
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, s3_failures, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    former = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    boto3.client("s3").create_bucket(Bucket="earshot")
    yield "s3://earshot"
    server.shutdown()
    for name, value in former.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(tmp_path / "folder")
    return Storage(f"{request.getfixturevalue('s3')}/{tmp_path.name}")
