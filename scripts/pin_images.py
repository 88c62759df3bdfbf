"""Pin the base images of renders by digest: ``just pin-images``.

Asks the registry for the digest of each tag and writes them to cookiecutter.json. A tag without a
digest there is rendered as it is.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx2

from testing.baking import ROOT

REGISTRY: Final = "https://registry-1.docker.io"
ACCEPTED: Final = (
    "application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)
"""The indexes of an image for every architecture."""


def images(questions: Mapping[str, Any]) -> list[str]:
    """Return the base images of a render, with their tags."""
    debian, python = questions["_debian"], questions["_python_versions"][-1]
    return [
        f"debian:{debian}-slim",
        f"postgres:{questions['_postgresql']}",
        f"python:{python}-slim-{debian}",
    ]


def digest(image: str, registry: str) -> str:
    """Return the digest of an official image, by the protocol of the OCI distribution.

    Raises:
        httpx2.HTTPError: the registry can't be reached, or has no such image.

    """
    name, _, tag = image.partition(":")
    url = f"{registry}/v2/library/{name}/manifests/{tag}"
    headers = {"Accept": ACCEPTED}
    with httpx2.Client(timeout=30) as client:
        response = client.head(url, headers=headers)
        if response.status_code == httpx2.codes.UNAUTHORIZED:  # an anonymous token is required
            challenge = response.headers["WWW-Authenticate"]
            parameters = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
            issued = client.get(parameters.pop("realm"), params=parameters).raise_for_status()
            headers["Authorization"] = f"Bearer {issued.json()['token']}"
            response = client.head(url, headers=headers)
        found: str = response.raise_for_status().headers["Docker-Content-Digest"]
    return found


def pinned(root: Path, registry: str = REGISTRY) -> str:
    """Return the text of cookiecutter.json with the digest of each base image."""
    text = (root / "cookiecutter.json").read_text(encoding="utf-8")
    digests = {image: f"@{digest(image, registry)}" for image in images(json.loads(text))}
    block = json.dumps(digests, indent=2).replace("\n", "\n  ")
    return re.sub(r'("_digests": )\{[^}]*\}', lambda found: found[1] + block, text)


def main() -> None:
    """Write the digests."""
    try:
        text = pinned(ROOT)
    except httpx2.HTTPError as error:
        sys.exit(f"Nothing was changed: {error}")
    (ROOT / "cookiecutter.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
