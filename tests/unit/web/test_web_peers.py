"""The kernel's socket table, read: from recorded tables and from this machine's own."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path

import pytest

from dicode_mcp.web.peers import FindOwner, find_owner, read_owner
from dicode_mcp.web.sock_diag import SocketOwner, ask_owner

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid inode\n"

little_endian = pytest.mark.skipif(
    sys.byteorder != "little", reason="the recorded tables are of a little-endian machine"
)


def table(folder: Path, *lines: str, name: str = "tcp") -> Path:
    """Write a table."""
    (folder / name).write_text(HEAD + "".join(line + "\n" for line in lines))
    return folder


def row(local: str, remote: str, state: str, uid: int, inode: int) -> str:
    """Write a line as the kernel does."""
    tail = f"00000000:00000000 00:00000000 00000000  {uid:>4}        0 {inode} 1 0 20 4 30 10 -1"
    return f"   1: {local} {remote} {state} {tail}"


PEER, OWN = ("127.0.0.1", 40000), ("127.0.0.1", 8080)
PEER_HEX, OWN_HEX = "0100007F:9C40", "0100007F:1F90"


@little_endian
def test_the_line_with_our_addresses_the_other_way_round_names_the_owner(tmp_path: Path) -> None:
    table(
        tmp_path,
        row(OWN_HEX, PEER_HEX, "01", 0, 11),
        row(PEER_HEX, "0100007F:1F91", "01", 7, 12),
        row(PEER_HEX, OWN_HEX, "01", 1000, 13),
    )
    assert read_owner(PEER, OWN, tmp_path) == SocketOwner(1000, 1, 13)


@little_endian
@pytest.mark.parametrize(("state", "inode"), [("01", 0), ("06", 5), ("03", 0), ("07", 9)])
def test_a_socket_that_no_process_holds_has_no_owner(
    tmp_path: Path, state: str, inode: int
) -> None:
    table(tmp_path, row(PEER_HEX, OWN_HEX, state, 0, inode))
    assert read_owner(PEER, OWN, tmp_path) is None


@little_endian
def test_a_v4_peer_may_stand_in_the_v6_table(tmp_path: Path) -> None:
    mapped = "0000000000000000FFFF0000"
    table(tmp_path, row(f"{mapped}{PEER_HEX}", f"{mapped}{OWN_HEX}", "01", 1001, 5), name="tcp6")
    owner = SocketOwner(1001, 1, 5)
    assert read_owner(PEER, OWN, tmp_path) == owner
    assert read_owner(("::ffff:127.0.0.1", 40000), ("::ffff:127.0.0.1", 8080), tmp_path) == owner


@little_endian
def test_v6_addresses_are_found(tmp_path: Path) -> None:
    one = "00000000000000000000000001000000"
    table(tmp_path, row(f"{one}:9C40", f"{one}:1F90", "01", 5, 5), name="tcp6")
    assert read_owner(("::1", 40000), ("::1", 8080), tmp_path) == SocketOwner(5, 1, 5)


def test_without_a_table_nobody_is_known(tmp_path: Path) -> None:
    assert read_owner(PEER, OWN, tmp_path) is None
    assert read_owner(("not an address", 1), OWN, tmp_path) is None


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no kernel table here")
@pytest.mark.parametrize("find", [find_owner, read_owner])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_real_connection_is_owned_by_this_user_until_it_is_given_up(
    find: FindOwner, host: str
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2]) as client:
            served, _ = listener.accept()
            with served:
                peer, own = served.getpeername()[:2], served.getsockname()[:2]
                inode = os.fstat(client.fileno()).st_ino
                assert find(peer, own) == SocketOwner(os.geteuid(), 1, inode)
                assert find((peer[0], peer[1] ^ 1), own) is None
                client.close()
                assert find(peer, own) is None


@pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")
def test_a_listener_is_not_taken_for_the_peer() -> None:
    address = ipaddress.IPv4Address("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert ask_owner((address, port), (address, 1)) is None
