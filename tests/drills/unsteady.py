"""An S3 server that fails as real ones do: it errs, waits, drops connections, and breaks answers off."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.drills.hosts import NETWORK

PORT = 9083
ENVIRONMENT = {
    "AWS_ENDPOINT_URL": f"http://{NETWORK}.1:{PORT}",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
DELAY_S = 0.5


class Unsteady:
    """A proxy in front of the server.

    Attributes:
        share: of the requests that go wrong, 0 at first.
        faults: how often each fault happened.
    """

    def __init__(self, app: Any, seed: int) -> None:
        self.share, self.faults = 0.0, Counter[str]()
        self._app, self._draw = app, random.Random(seed)

    def __call__(self, request: dict[str, Any], start_response: Any) -> Any:
        if self._draw.random() >= self.share:
            return self._app(request, start_response)
        fault = self._draw.choice(["error", "delay", "drop", "lost answer", "truncated answer"])
        self.faults[fault] += 1
        if fault == "delay":
            time.sleep(DELAY_S)
            return self._app(request, start_response)
        if fault == "error":
            request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if fault == "drop":
            start_response("200 OK", [("Content-Length", "0")])  # nobody will read it
            answer = b""
        else:
            answer = b"".join(self._app(request, start_response))  # the request was carried out
        if fault == "truncated answer" and answer:
            return [answer[: len(answer) // 2]]
        with contextlib.suppress(OSError):
            request["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return [b""]


@contextlib.contextmanager
def unsteady_store(seed: int) -> Iterator[Unsteady]:
    """The server, with an empty bucket ``s3://earshot``; every host of the network reaches it."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            pass

        def connection_dropped(self, *_: Any) -> None:
            pass

    proxy = Unsteady(DomainDispatcherApplication(create_backend_app), seed)
    server = make_server(f"{NETWORK}.1", PORT, proxy, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        boto3.client("s3").create_bucket(Bucket="earshot")
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
