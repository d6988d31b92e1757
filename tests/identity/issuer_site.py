"""An OpenID Connect issuer on this machine: a real HTTP server with a discovery document and keys that change."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

DISCOVERY: Final = "/.well-known/openid-configuration"
KEYS: Final = "/keys"


@dataclass
class Signer:
    """A key pair, and the tokens that it signs."""

    kid: str
    algorithm: str = "ES256"
    private: Any = None

    def __post_init__(self) -> None:
        self.private = self.private or _private(self.algorithm)

    @property
    def public(self) -> dict[str, Any]:
        """The key as it is published, without saying for which algorithm."""
        made = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return {**made, "kid": self.kid, "use": "sig"}

    def token(self, claims: dict[str, Any], *, named: bool = True) -> str:
        """With the key's id in the header, if it is to be `named`."""
        return jwt.encode(claims, self.private, self.algorithm, {"kid": self.kid} if named else None)


@dataclass
class Site:
    """What the server answers, and how often it was asked."""

    url: str
    keys: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def claims(self, **other: Any) -> dict[str, Any]:
        """A good token's; None takes a claim out."""
        now = int(time.time())
        given = {"iss": self.url, "aud": "control", "sub": "ana", "iat": now, "exp": now + 60, "roles": ["viewer"]}
        return {name: value for name, value in (given | other).items() if value is not None}

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked[path] += 1
        usual = {DISCOVERY: {"issuer": self.url, "jwks_uri": self.url + KEYS}, KEYS: {"keys": self.keys}}
        found = (usual | self.answers).get(path, 404)
        return (found, b"") if isinstance(found, int) else (200, json.dumps(found).encode())


@contextmanager
def site() -> Iterator[Site]:
    made = Site("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = made.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _private(algorithm: str) -> Any:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("ES"):
        return ec.generate_private_key({"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}[algorithm]())
    return rsa.generate_private_key(65537, 2048)
