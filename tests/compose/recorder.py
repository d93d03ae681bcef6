"""Stands behind a proxy in a container and prints what reaches it, a JSON line a request."""

import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Recorder(BaseHTTPRequestHandler):
    """Answers every request 200 with its path, and prints it; what is no request too."""

    protocol_version = "HTTP/1.1"
    # As uvicorn does.
    timeout = 5

    def _record(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if self.path not in {"/health", "/enrolment/health"} or self.command != "GET":
            self._print(
                method=self.command,
                path=self.path,
                headers={name.lower(): value for name, value in self.headers.items()},
                body=len(body),
            )
        answer = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = do_CONNECT = do_TRACE = _record  # noqa: N815 - http.server's names

    def send_error(self, code: int, *_arguments: Any, **_options: Any) -> None:
        """Print that something could not be read."""
        self._print(method="?", path="?", headers={}, body=code)
        self.close_connection = True

    def log_message(self, *_arguments: Any) -> None:
        """Nothing but requests is printed."""

    @staticmethod
    def _print(**request: Any) -> None:
        print(json.dumps(request), flush=True)


def main() -> None:
    """Listen with TLS at the ports of SuperLink and enrolment: the argument names the PEM file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    for port in (8000, 8003):
        server = ThreadingHTTPServer(("", port), Recorder)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main()
