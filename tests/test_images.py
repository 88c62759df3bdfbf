"""Base images are pinned by the digests that a registry has for their tags."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import httpx2
import pytest
from pytest_cookies.plugin import Cookies

from scripts.pin_images import images, pinned
from testing.baking import ROOT, Project, copy_template

QUESTIONS: Final = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))


class Registry(BaseHTTPRequestHandler):
    """A registry that has every image, and requires a token."""

    def do_GET(self) -> None:
        self._respond(200, body=b'{"token": "anonymous"}' if "scope=" in self.path else b"{}")

    def do_HEAD(self) -> None:
        repository, _, tag = self.path.removeprefix("/v2/").partition("/manifests/")
        if self.headers["Authorization"] != "Bearer anonymous":
            realm = f'realm="http://{self.headers["Host"]}/token"'
            scope = f'scope="repository:{repository}:pull"'
            self._respond(401, {"WWW-Authenticate": f"Bearer {realm},{scope}"})
        elif "vnd.oci.image.index" not in self.headers["Accept"] or tag == "missing":
            self._respond(404)
        else:
            self._respond(200, {"Docker-Content-Digest": digest_of(f"{repository}:{tag}")})

    def _respond(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def digest_of(image: str) -> str:
    return f"sha256:{image.encode().hex():0>64}"


@pytest.fixture
def registry() -> Iterator[str]:
    """Return the URL of a local registry."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_base_image_is_rendered_with_its_digest(
    registry: str, tmp_path: Path, cookies: Cookies
) -> None:
    root = copy_template(tmp_path / "template")
    text = pinned(root, registry)
    digests = {image: f"@{digest_of(f'library/{image}')}" for image in images(QUESTIONS)}
    assert json.loads(text) == QUESTIONS | {"_digests": digests}
    (root / "cookiecutter.json").write_text(text, encoding="utf-8")
    assert pinned(root, registry) == text  # again

    answers = {"database": "postgresql", "deploy": "kubernetes"}
    result = cookies.bake(extra_context=answers, template=str(root))
    assert result.exception is None, result.exception
    project = Project(result.project_path, result.context)
    used = set[str]()
    for file in ("Dockerfile", "compose.yaml", "deploy/kubernetes/base/backup.yaml"):
        found = re.findall(r"(?:FROM|image:) ((?:python|postgres|debian):\S+)", project.text(file))
        assert found, file
        used.update(found)
    assert used == {f"{image}{digest}" for image, digest in digests.items()}


def test_without_a_registry_nothing_is_pinned(tmp_path: Path, registry: str) -> None:
    root = copy_template(tmp_path / "template")
    questions = root / "cookiecutter.json"
    for before, after in (('"18"', '"missing"'), ("", "")):
        text = questions.read_text(encoding="utf-8").replace(before, after, 1)
        questions.write_text(text, encoding="utf-8")
        with pytest.raises(httpx2.HTTPError):
            pinned(root, registry if before else "http://127.0.0.1:1")
