"""Tries ways out of a run with a gate; each gives what came of it."""

import asyncio
import random
import socket
import ssl
import struct
import urllib.request

from dicode_sdk import params


def tried(act):
    try:
        return act()
    except BaseException as error:
        return f"refused: {type(error).__name__}: {error}"


def port(name):
    return int(params.get(name))


def get(url, context=None):
    with urllib.request.urlopen(url, timeout=10, context=context) as answer:
        return answer.read().decode()


def raw(host, where, family=socket.AF_UNSPEC):
    found = socket.getaddrinfo(host, where, family, socket.SOCK_STREAM)[0]
    with socket.socket(*found[:3]) as link:
        link.settimeout(10)
        link.connect(found[4])
        link.sendall(b"ping\n")
        return link.recv(100).decode() or "refused: closed"


async def through_asyncio():
    reader, writer = await asyncio.open_connection("allowed.test", port("raw"))
    writer.write(b"ping\n")
    told = (await reader.readline()).decode()
    writer.close()
    return told


def fast_open():
    """A connection that no ``connect`` announces."""
    with socket.socket() as link:
        link.settimeout(10)
        address = socket.gethostbyname("allowed.test")
        link.sendto(b"ping\n", socket.MSG_FASTOPEN, (address, port("shut")))
        return link.recv(100).decode() or "refused: closed"


def udp(host, where):
    with socket.socket(type=socket.SOCK_DGRAM) as link:
        link.settimeout(1)
        link.connect((host, where))
        link.send(b"ping\n")
        return link.recv(100).decode()


def ask(name, kind, server="127.0.0.1", family=socket.AF_INET, stream=False):
    """Ask the stub for records; gives the code and the number of answers."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    packet = struct.pack("!HHHHHH", 9, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)
    with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as link:
        link.settimeout(5)
        link.connect((server, 53))
        link.send(struct.pack("!H", len(packet)) + packet if stream else packet)
        told = link.recv(2000)
        _, flags, _, answers, _, _ = struct.unpack_from("!HHHHHH", told[2:] if stream else told)
        return f"code {flags & 15}, {answers} answers"


def tunnel():
    """Carry data in names: none of them gets anywhere."""
    chance = random.Random(7)
    codes = set()
    for _ in range(50):
        name = "".join(chance.choices("abcdef0123456789", k=60))
        codes.add(ask(f"{name}.tunnel.example", chance.choice([1, 16, 28])))
    return sorted(codes)


def own_server():
    """A listener of the run's own can be reached, and by nobody else's rules."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5) as link:
            accepted, _ = server.accept()
            with accepted:
                link.sendall(b"mine")
                return accepted.recv(10).decode()


trusted = ssl.create_default_context(cafile=params.get("certificate"))
result = {
    "urllib": tried(lambda: get(f"http://allowed.test:{port('web')}/")),
    "tls": tried(lambda: get(f"https://allowed.test:{port('tls')}/", trusted)),
    "tls untrusted": tried(lambda: get(f"https://allowed.test:{port('tls')}/")),
    "raw": tried(lambda: raw("allowed.test", port("raw"))),
    "raw over six": tried(lambda: raw("allowed.test", port("raw"), socket.AF_INET6)),
    "asyncio": tried(lambda: asyncio.run(through_asyncio())),
    "listed address": tried(lambda: raw("127.0.0.1", port("raw"))),
    "localhost at ::1": tried(lambda: raw("localhost", port("six"), socket.AF_INET)),
    "wildcard, any port": tried(lambda: raw("deep.wild.example", port("raw"))),
    "wildcard, unlisted address": tried(lambda: raw("deep.wild.example", port("shut"))),
    "own listener": tried(own_server),
    "stub": tried(lambda: ask("allowed.test", 1)),
    "stub elsewhere": tried(lambda: ask("allowed.test", 28, "8.8.8.8")),
    "stub over six": tried(lambda: ask("allowed.test", 28, "2001:db8::53", socket.AF_INET6)),
    "stub by stream": tried(lambda: ask("allowed.test", 1, stream=True)),
    "stub, text": tried(lambda: ask("allowed.test", 16)),
    "unlisted name": tried(lambda: get(f"http://other.test:{port('web')}/")),
    "unlisted port": tried(lambda: raw("allowed.test", port("shut"))),
    "unlisted port, unannounced": tried(fast_open),
    "unlisted address": tried(lambda: raw("127.0.0.2", port("web"))),
    "unlisted loopback port": tried(lambda: raw("127.0.0.1", port("shut"))),
    "public address": tried(lambda: raw("1.1.1.1", 443)),
    "public address, six": tried(lambda: raw("2606:4700::1111", 443)),
    "mapped": tried(lambda: raw("::ffff:127.0.0.2", port("web"), socket.AF_INET6)),
    "metadata": tried(lambda: raw("169.254.169.254", 80)),
    "name of metadata": tried(lambda: raw("metadata.example", 80)),
    "rebound name": tried(lambda: raw("rebound.example", port("web"))),
    "mapped name": tried(lambda: raw("mapped.example", port("web"))),
    "server itself": tried(lambda: raw("127.0.0.1", port("own"))),
    "udp": tried(lambda: udp("allowed.test", port("web"))),
    "udp, 443": tried(lambda: udp("1.1.1.1", 443)),
    "name without a rule": tried(lambda: raw("nowhere.example", 80)),
    "tunnel": tried(tunnel),
}
