"""Model servers as processes on loopback, for tests and benchmarks."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.harness.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SDK_SERVER = ("-m", "google.cloud.aiplatform.prediction.model_server")
OUR_SERVER = ("-m", "serving.model_server")
START_S = 90.0


def container_environment(port: int, storage_uri: str) -> dict[str, str]:
    """The variables that Vertex AI sets for a container, and those of the image."""
    return {
        "AIP_HTTP_PORT": str(port),
        "AIP_HEALTH_ROUTE": "/health",
        "AIP_PREDICT_ROUTE": "/predict",
        "AIP_STORAGE_URI": storage_uri,
        "HANDLER_MODULE": "serving.server.handler",
        "HANDLER_CLASS": "BinaryHandler",
        "PREDICTOR_MODULE": "serving.server.predictor",
        "PREDICTOR_CLASS": "UnderstudyPredictor",
        "VERTEX_CPR_WEB_CONCURRENCY": "1",
        "UNDERSTUDY_HOST": "127.0.0.1",
    }


@contextmanager
def serving(
    storage_uri: str, entry: Sequence[str] = OUR_SERVER, extra: Mapping[str, str] | None = None, root: Path = ROOT
) -> Generator[str]:
    """Start a model server; returns its base URL once its health route is green, and ends it after."""
    port = free_port()
    environment = {**os.environ, **container_environment(port, storage_uri), **(extra or {}), "PYTHONPATH": str(root)}
    with running([sys.executable, *entry], f"http://127.0.0.1:{port}", environment, root) as url:
        yield url


@contextmanager
def running(command: Sequence[str], url: str, environment: Mapping[str, str], root: Path = ROOT) -> Generator[str]:
    """Run a server's command until its health route answers 200; returns the URL, and ends it after."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=root, env=dict(environment), stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_green(process, url)
            yield url
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-3000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait_until_green(process: "subprocess.Popen[bytes]", url: str) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended with {process.returncode} before it was healthy.")
        try:
            if requests.get(f"{url}/health", timeout=1).status_code == 200:
                return
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.05)
    raise TimeoutError(f"The server was not healthy within {START_S} s.")
