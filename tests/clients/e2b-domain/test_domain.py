"""What needs names: ports of programs, signed addresses, tokens for traffic. CPython does not know that names below
localhost are this machine, so requests are made to 127.0.0.1 with the name as `Host` and for TLS."""

import http.client
import os
import socket
import ssl
import time
from urllib.parse import urlsplit

import pytest
from e2b_code_interpreter import Sandbox

SERVER = "from http.server import *\nclass H(BaseHTTPRequestHandler):\n def do_GET(s):\n  s.send_response(200); s.end_headers(); s.wfile.write((s.path+'|'+s.headers['Host']).encode())\nHTTPServer(('127.0.0.1',8080),H).serve_forever()"


class Https(http.client.HTTPSConnection):
    """A connection to this machine that asks for a name."""

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), 30)
        self.sock = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]).wrap_socket(
            plain, server_hostname=self.host
        )


def get(url, headers=None):
    address = urlsplit(url)
    connection = Https(address.hostname, address.port)
    connection.request("GET", f"{address.path or '/'}?{address.query}".rstrip("?"), headers=headers or {})
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, body


def listening(sandbox):
    sandbox.commands.run(f'python3 -c "{SERVER}"', background=True)
    sandbox.commands.run("until curl -s localhost:8080 >/dev/null; do sleep 0.1; done")


@pytest.fixture
def sandbox():
    sandbox = Sandbox.create("base", timeout=120)
    yield sandbox
    sandbox.kill()


def test_everyday_calls(sandbox):
    assert sandbox.commands.run("echo named").stdout == "named\n"
    assert sandbox.run_code("6 * 7").text == "42"
    sandbox.files.write("x", b"\x00" * 300_000)
    assert len(sandbox.files.read("x", format="bytes")) == 300_000


def test_a_programs_port_has_a_name(sandbox):
    host = sandbox.get_host(8080)
    status, body = get(f"https://{host}/")
    assert status == 502
    assert "port is not open" in body
    listening(sandbox)
    assert get(f"https://{host}/a/b?c=d%20e") == (200, f"/a/b?c=d%20e|{host}")
    sandbox.kill()
    status, body = get(f"https://{host}/")
    assert status == 502
    assert "The sandbox was not found" in body


def test_signed_addresses(sandbox):
    sandbox.files.write("secret.txt", "content")
    assert get(sandbox.download_url("secret.txt", use_signature_expiration=60)) == (200, "content")
    assert get(sandbox.download_url("secret.txt")) == (200, "content")
    sandbox.files.write("grüße 1.txt", "content")
    assert get(sandbox.download_url("grüße 1.txt")) == (200, "content")
    expired = sandbox.download_url("secret.txt", use_signature_expiration=1)
    time.sleep(2.1)
    status, body = get(expired)
    assert status == 401
    assert "signature is already expired" in body
    unsigned = sandbox.download_url("secret.txt").partition("&signature")[0]
    assert get(unsigned)[0] == 401
    other = sandbox.download_url("secret.txt").replace("secret.txt", "other.txt")
    assert get(other)[0] == 401


STREAMS = """
import asyncio, base64, hashlib, re
async def talk(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    key = re.search(rb"(?i)sec-websocket-key: (\\S+)", head)[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n")
    writer.write(b"Sec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n")
    while True:
        kind, size = await reader.readexactly(2)
        mask, data = await reader.readexactly(4), await reader.readexactly(size & 127)
        data = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
        writer.write(bytes([kind, len(data)]) + data[::-1])
async def tell(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n\\r\\n")
    for number in range(3):
        writer.write(b"data: %d\\n\\n" % number)
        await writer.drain()
        await asyncio.sleep(1)
    writer.close()
async def main():
    await asyncio.start_server(talk, "127.0.0.1", 8081)
    await (await asyncio.start_server(tell, "127.0.0.1", 8082)).serve_forever()
asyncio.run(main())
"""
"""An echo backwards by WebSocket, and events, with nothing but the standard library."""


def frame(data):
    """One masked text frame of a WebSocket."""
    mask = os.urandom(4)
    return bytes([0x81, 0x80 | len(data)]) + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))


def test_websockets_and_events_by_name(sandbox):
    sandbox.files.write("/tmp/streams.py", STREAMS)
    sandbox.commands.run("python3 /tmp/streams.py", background=True)
    sandbox.commands.run("until ss -ltn | grep -q :8082; do sleep 0.1; done")
    address = urlsplit(f"https://{sandbox.get_host(8081)}")
    connection = Https(address.hostname, address.port)
    connection.connect()
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    connection.sock.sendall(
        f"GET / HTTP/1.1\r\nhost: {address.netloc}\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
    )
    answers = connection.sock.makefile("rb")
    assert b" 101 " in answers.readline()
    while answers.readline().strip():
        pass
    for word in (b"abc", b"defg"):
        connection.sock.sendall(frame(word))
        assert answers.read(2 + len(word)) == bytes([0x81, len(word)]) + word[::-1]
    connection.sock.close()
    address = urlsplit(f"https://{sandbox.get_host(8082)}")
    connection = Https(address.hostname, address.port)
    connection.request("GET", "/")
    reply, came = connection.getresponse(), []
    while line := reply.readline():
        if line.startswith(b"data: "):
            came.append((int(line[6:]), time.monotonic()))
    assert [number for number, _ in came] == [0, 1, 2]
    assert came[2][1] - came[0][1] > 1, "each comes when it is sent, not all at the end"
    connection.close()


def test_an_address_to_upload_to(sandbox):
    url = urlsplit(sandbox.upload_url("/tmp/up.txt", use_signature_expiration=60))
    body = b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\nfrom elsewhere\r\n--b--\r\n'
    for query, status in ((url.query, 200), (url.query.replace("up.txt", "other.txt"), 401)):
        connection = Https(url.hostname, url.port)
        connection.request("POST", f"{url.path}?{query}", body, {"content-type": "multipart/form-data; boundary=b"})
        assert connection.getresponse().status == status
        connection.close()
    assert sandbox.files.read("/tmp/up.txt") == "from elsewhere"


def test_traffic_can_be_private():
    sandbox = Sandbox.create("base", timeout=120, network={"allow_public_traffic": False})
    try:
        listening(sandbox)
        url = f"https://{sandbox.get_host(8080)}/"
        assert get(url)[0] == 403
        assert get(url, {"e2b-traffic-access-token": "wrong"})[0] == 403
        assert get(url, {"e2b-traffic-access-token": sandbox.traffic_access_token})[0] == 200
    finally:
        sandbox.kill()


def test_who_comes_by_name_wakes_it():
    sandbox = Sandbox.create("base", timeout=120, lifecycle={"on_timeout": "pause", "auto_resume": True})
    try:
        listening(sandbox)
        sandbox.files.write("secret.txt", "content")
        url = f"https://{sandbox.get_host(8080)}/"
        sandbox.set_timeout(0)
        assert sandbox.get_info().state.value == "paused"
        assert get(url)[0] == 200
        assert sandbox.get_info().state.value == "running"
        sandbox.pause()
        assert get(sandbox.download_url("secret.txt").partition("&signature")[0])[0] == 401
        assert sandbox.get_info().state.value == "paused"
        assert get(sandbox.download_url("secret.txt")) == (200, "content")
        assert sandbox.get_info().state.value == "running"
    finally:
        sandbox.kill()


def test_who_does_not_want_that_resumes_it(sandbox):
    listening(sandbox)
    url = f"https://{sandbox.get_host(8080)}/"
    sandbox.pause()
    status, body = get(url)
    assert status == 502
    assert "The sandbox was not found" in body
    sandbox.connect()
    assert get(url)[0] == 200
