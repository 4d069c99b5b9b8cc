"""Speaks to a proxy in every way, and tries to get past it; each gives what came of it."""

import ctypes
import os
import socket
import struct
import threading
from urllib.parse import urlsplit

from dicode_sdk import params

PORT = int(params.get("port"))
PROXY = urlsplit(os.environ["HTTP_PROXY"])
LIBC = ctypes.CDLL(None, use_errno=True)


def tried(act):
    try:
        return act()
    except BaseException as error:
        return f"refused: {type(error).__name__}: {error}"


def link():
    return socket.create_connection((PROXY.hostname, PROXY.port), timeout=20)


def all_of(given):
    got = b""
    while more := given.recv(4096):
        got += more
    return got.decode()


def connect(place, early=b""):
    with link() as given:
        given.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode() + early)
        told = b""
        while b"\r\n\r\n" not in told:
            more = given.recv(1)
            if not more:
                return told.decode()
            told += more
        if b" 200 " not in told:
            return told.decode() + all_of(given)
        if not early:
            given.sendall(b"ping\n")
        return given.recv(100).decode()


def whole(text):
    with link() as given:
        given.sendall(text.encode())
        return all_of(given)


def post(host):
    return whole(
        f"POST http://{host}:{PORT}/path?q=1 HTTP/1.1\r\nHost: {host}:{PORT}\r\n"
        "Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\n"
        "Connection: keep-alive\r\nContent-Length: 4\r\n\r\nbody"
    )


def socks(request, methods=b"\x05\x02\x00\x02"):
    with link() as given:
        given.sendall(methods)
        if given.recv(2) != b"\x05\x00":
            return "no method"
        given.sendall(request)
        told = given.recv(10, socket.MSG_WAITALL)
        if told[1]:
            return f"refused: {told[1]}"
        given.sendall(b"ping\n")
        return given.recv(100).decode()


def asked(kind, host, port=PORT, command=1):
    return bytes([5, command, 0, kind]) + host + struct.pack("!H", port)


def named(name):
    return bytes([len(name)]) + name.encode()


def straight(host, port, kind=socket.SOCK_STREAM, protocol=0, family=socket.AF_INET):
    with socket.socket(family, kind, protocol) as given:
        given.settimeout(5)
        given.connect((host, port))
        return "connected"


def sent(act):
    """A connection that no ``connect`` announces."""
    with socket.socket() as given:
        given.settimeout(5)
        act(given)
        return "connected"


def changed():
    """Change the address while the server reads it: what it read is where it leads."""
    good = bytearray(
        struct.pack("=H", 2) + struct.pack("!H", PORT) + bytes([127, 0, 0, 1]) + bytes(8)
    )
    bad = struct.pack("=H", 2) + struct.pack("!H", 1) + bytes([127, 0, 0, 2]) + bytes(8)
    memory = (ctypes.c_char * 16).from_buffer(good)
    kept, over = bytes(good), threading.Event()

    def swap():
        while not over.is_set():
            good[:] = bad
            good[:] = kept

    swapping = threading.Thread(target=swap)
    swapping.start()
    ends = set()
    try:
        for _ in range(200):
            with socket.socket() as given:
                if LIBC.connect(given.fileno(), memory, 16) == 0:
                    ends.add(given.getpeername())
    finally:
        over.set()
        swapping.join()
    return "refused: never elsewhere" if len(ends) <= 1 else f"connected to {ends}"


def again():
    """Lead a connection that was made elsewhere."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=5) as given:
        LIBC.connect(given.fileno(), bytes(16), 16)  # let go of the first
        given.connect(("1.1.1.1", 443))
        return "connected"


result = {
    "connect": tried(lambda: connect(f"allowed.test:{PORT}")),
    "connect, sent at once": tried(lambda: connect(f"ALLOWED.test.:{PORT}", b"ping\n")),
    "connect, another port": tried(lambda: connect(f"allowed.test:{PORT - 1}")),
    "connect, another name": tried(lambda: connect("other.test:443")),
    "connect, number": tried(lambda: connect(f"2130706433:{PORT}")),
    "connect, rebound": tried(lambda: connect(f"127.0.0.2:{PORT}")),
    "connect, public": tried(lambda: connect("1.1.1.1:443")),
    "whole url": tried(lambda: post("allowed.test")),
    "whole url, another name": tried(lambda: post("other.test")),
    "nonsense": tried(lambda: whole("GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n")),
    "socks, name": tried(lambda: socks(asked(3, named("allowed.test")))),
    "socks, address": tried(lambda: socks(asked(1, bytes([127, 0, 0, 1])))),
    "socks, mapped address": tried(
        lambda: socks(asked(4, socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")))
    ),
    "socks, another name": tried(lambda: socks(asked(3, named("other.test")))),
    "socks, another address": tried(lambda: socks(asked(1, bytes([127, 0, 0, 2])))),
    "socks, listening": tried(lambda: socks(asked(1, bytes(4), command=2))),
    "socks, udp": tried(lambda: socks(asked(1, bytes(4), command=3))),
    "socks, no such kind": tried(lambda: socks(asked(9, b""))),
    "socks, with a password only": tried(lambda: socks(b"", b"\x05\x01\x02")),
    "past: address": tried(lambda: straight("127.0.0.2", PORT)),
    "past: public address": tried(lambda: straight("1.1.1.1", 443)),
    "past: proxy's port elsewhere": tried(lambda: straight("1.1.1.1", PROXY.port)),
    "past: six": tried(lambda: straight("::1", PORT, family=socket.AF_INET6)),
    "past: udp": tried(lambda: straight("1.1.1.1", 53, socket.SOCK_DGRAM)),
    "past: raw": tried(lambda: straight("1.1.1.1", 0, socket.SOCK_RAW, 1)),
    "past: mptcp": tried(lambda: straight("127.0.0.1", PORT, protocol=262)),
    "past: sctp": tried(lambda: straight("127.0.0.1", PORT, protocol=132)),
    "past: unix": tried(lambda: straight(b"\0x", 0, family=socket.AF_UNIX)),
    "past: sendto": tried(
        lambda: sent(lambda s: s.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", PORT)))
    ),
    "past: sendmsg": tried(
        lambda: sent(lambda s: s.sendmsg([b"x"], [], socket.MSG_FASTOPEN, ("127.0.0.1", PORT)))
    ),
    "past: binding": tried(lambda: sent(lambda s: s.bind(("127.0.0.1", 0)))),
    "past: listening": tried(lambda: sent(lambda s: s.listen())),
    "past: no address": tried(lambda: f"refused {LIBC.connect(3, None, 16)}"),
    "past: changed address": tried(changed),
    "past: led again": tried(again),
}
