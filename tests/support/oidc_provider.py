"""An OpenID provider on loopback that lets everybody in as one person: discovery, authorisation, token, keys."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT = "understudy"


@contextmanager
def oidc_provider(name: str) -> Iterator[str]:
    """Serve while the block runs; returns the provider's address. Everybody is `name`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(name, RSAKey.generate_key(2048, {"kid": "1"})))
    thread = threading.Thread(target=server.serve_forever, name="oidc-provider", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def _handler(name: str, key: RSAKey) -> type[BaseHTTPRequestHandler]:
    nonces: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        """One request."""

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            own = f"http://{self.headers['Host']}"
            if asked.path == "/authorize":
                self._send_back({key: values[0] for key, values in parse_qs(asked.query).items()})
            elif asked.path == "/keys":
                self._answer({"keys": [key.as_dict(private=False, alg="RS256", use="sig")]})
            else:
                self._answer(
                    {
                        "issuer": own,
                        "authorization_endpoint": f"{own}/authorize",
                        "token_endpoint": f"{own}/token",
                        "jwks_uri": f"{own}/keys",
                        "id_token_signing_alg_values_supported": ["RS256"],
                    }
                )

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            claims = {
                "iss": f"http://{self.headers['Host']}",
                "aud": CLIENT,
                "sub": name,
                "name": name,
                "nonce": nonces[form["code"][0]],
                "iat": int(time.time()),
                "exp": int(time.time()) + 600,
            }
            token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, key)
            self._answer({"access_token": "unused", "token_type": "Bearer", "expires_in": 600, "id_token": token})

        def _send_back(self, asked: dict[str, str]) -> None:
            nonces["code"] = asked["nonce"]
            self.send_response(302)
            self.send_header(
                "Location", f"{asked['redirect_uri']}?{urlencode({'code': 'code', 'state': asked['state']})}"
            )
            self.end_headers()

        def _answer(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep the tests' output clean."""

    return Handler
