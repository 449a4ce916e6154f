import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from bench.api import ApiFailure, RawApi, files_path


class Forgetful(BaseHTTPRequestHandler):
    """Keeps connections alive in its headers and closes them all the same, as a server does with idle ones."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def api():  # type: ignore[no-untyped-def]
    with HTTPServer(("127.0.0.1", 0), Forgetful) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        api = RawApi(f"http://127.0.0.1:{server.server_address[1]}", "key")
        yield api
        api.close()
        server.shutdown()
        thread.join()


def test_a_connection_that_the_server_closed_is_opened_again(api: RawApi) -> None:
    for _ in range(3):
        assert api.call("GET", "/") == {}
        api._connection.sock.settimeout(5)
        assert api._connection.sock.recv(1) == b"", "the server has closed it by now"


def test_an_error_status_is_a_failure_that_shows_the_answer(api: RawApi) -> None:
    with pytest.raises(ApiFailure, match=r"GET /broken: 500 \{\}"):
        api.call("GET", "/broken")


def test_paths_are_quoted() -> None:
    assert files_path("sb", "/a b/ü&c") == "/v1/sandboxes/sb/files?path=%2Fa%20b%2F%C3%BC%26c"
