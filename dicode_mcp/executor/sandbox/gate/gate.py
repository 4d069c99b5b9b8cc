"""The network gate of one run: it takes what the run connects to, and connects where it may.

Inside the run every address is a socket of this gate. Names get addresses that mean nothing
elsewhere; on a connection the gate looks the name up itself, judges where it leads, and connects to
the very address it judged. Where a run has no network of its own, the server makes its connections
(``doors``), and they arrive here in the same way; there is a proxy as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from dicode_mcp.executor.sandbox.control import Network
from dicode_mcp.executor.sandbox.gate import dns, fakes, proxy
from dicode_mcp.executor.sandbox.gate.addresses import (
    Address,
    Kind,
    is_localhost,
    kind,
    parse,
)
from dicode_mcp.executor.sandbox.gate.calls import Call, Calls, listens
from dicode_mcp.executor.sandbox.gate.doors import HOST, Doors, Hall
from dicode_mcp.executor.sandbox.gate.entrance import Entrance
from dicode_mcp.executor.sandbox.gate.names import LOOPBACK, Rules
from dicode_mcp.executor.sandbox.gate.outside import Outside
from dicode_mcp.executor.sandbox.gate.pump import Pump, break_off
from dicode_mcp.executor.sandbox.gate.questions import Questions, answer_stream
from dicode_mcp.executor.sandbox.gate.refusals import Refusals, Tell
from dicode_mcp.runs.logs import Level

log = logging.getLogger("dicode.gate")

DNS_PORT = 53
MOST_CONNECTIONS = 256
"""At once and for each run; what is more waits."""
IDLE_S = 900.0
_MOST_REACHED = 200
_LAST_S = 2.0
"""How long what a run has sent may take to be delivered once it has ended."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What went through a gate."""

    connections: int = 0
    sent: int = 0
    received: int = 0


class Gate:
    """Takes the network of a cage once it is there.

    ``run`` is its life, which ``close`` ends; both must be called.
    """

    def __init__(
        self,
        rules: Rules,
        outside: Outside,
        tell: Tell,
        *,
        most: int = MOST_CONNECTIONS,
        hall: Hall | None = None,
        path: str | None = None,
    ) -> None:
        self._rules = rules
        self._outside = outside
        self._refusals = Refusals(tell)
        self._book = fakes.Book()
        self._entrance = Entrance(most, lambda: self._full(most))
        self._questions: Questions | None = None
        self._calls: Calls | Doors | None = None
        self._path = path
        self._six = False
        self._pumps: set[Pump] = set()
        self._closed = False
        self._reached: dict[str, None] = {}
        self._hall = hall
        if hall is not None:
            self._entrance.begin([(hall.port, hall.listener)], ())
        self.counted = Counted()

    @property
    def variables(self) -> Mapping[str, str]:
        """What the run's environment needs for this gate."""
        return proxy.variables(self._hall.port) if self._hall and self._rules else {}

    @property
    def wanted(self) -> tuple[str, ...]:
        """Rules that the run would have needed for what it was refused."""
        return self._refusals.wanted

    @property
    def reached(self) -> tuple[str, ...]:
        """The places that the run was let through to, the first two hundred."""
        return tuple(self._reached)

    # ── What the cage hands over ──

    def take_network(self, network: Network) -> None:
        """Begin to serve a cage's sockets, which are the gate's from now on."""
        if self._closed or self._questions is not None:
            for fd in (network.names, *(fd for _, fd in network.listeners), *network.spare):
                os.close(fd)
            return
        self._six = network.six
        self._questions = Questions(socket.socket(fileno=network.names), self._look_up)
        listeners = [(port, socket.socket(fileno=fd)) for port, fd in network.listeners]
        self._entrance.begin(listeners, network.spare)

    def take_calls(self, fd: int) -> None:
        """Begin to hear of connections before they are made."""
        if self._closed or self._calls is not None:
            os.close(fd)
            return
        if self._hall is None:
            self._calls = Calls(fd, self._foresee)
        else:
            self._calls = Doors(fd, self._hall, self._may_be_led, self._path)

    def close(self) -> None:
        """Take nothing new. What was sent before is still delivered, for a moment, by ``run``."""
        if self._closed:
            return
        self._refusals.mute()
        self._closed = True
        if self._calls is not None:
            self._calls.close()
        if self._questions is not None:
            self._questions.close()
        self._entrance.close()

    def abandon(self) -> None:
        """Close everything at once, where ``run`` was never begun or has ended."""
        self.close()
        self._entrance.abandon()

    async def run(self) -> None:
        """Serve connections until closed."""
        try:
            async with asyncio.TaskGroup() as group:
                served: set[asyncio.Task[None]] = set()
                while (connection := await self._entrance.accepted.get()) is not None:
                    task = group.create_task(self._guarded(connection))
                    served.add(task)
                    task.add_done_callback(served.discard)
                for pump in self._pumps:
                    pump.last()
                if served:
                    await asyncio.wait(tuple(served), timeout=_LAST_S)
                for task in tuple(served):
                    task.cancel()
        finally:
            self.abandon()

    # ── Names ──

    def _look_up(self, name: str, asked: int) -> dns.Addresses | None:
        if is_localhost(name):
            four, six = LOOPBACK
            return four, six if self._six else None
        if not self._rules.name(name):
            if asked in (dns.A, dns.AAAA) and not name.endswith(".arpa"):
                self._refusals.no_name(name)
            return None
        number = self._book.number(name)
        if number is None:
            self._refusals.say(
                Level.SECURITY, f"blocked: more than {fakes.MOST_NAMES} names in one run"
            )
            return None
        return fakes.address_4(number), fakes.address_6(number) if self._six else None

    # ── Connections about to be made ──

    def _foresee(self, call: Call) -> bool:
        """Tell whether a connection may be tried, opening its port where that is not done yet."""
        if call.port == 0 or self._is_stub(call.address, call.port):
            return True
        if self._entrance.has(call.port):
            return self._may(call.address, call.port, expected=True)
        own = kind(call.address) is Kind.LOOPBACK or int(call.address) == 0
        if own and not self._rules.listed(call.address, call.port):
            self._note_nobody(call)
            return True  # what the run itself listens on
        if not self._may(call.address, call.port, expected=True):
            return False
        if not self._entrance.open(call.port):
            text = f"blocked: connect to port {call.port} (too many ports in one run)"
            self._refusals.say(Level.SECURITY, text)
        return True

    def _may_be_led(self, call: Call) -> bool:
        """Tell whether to make a connection for the run."""
        if self._is_proxy(call.address, call.port) or self._is_stub(call.address, call.port):
            return True
        return self._may(call.address, call.port)

    def _is_proxy(self, address: Address, port: int) -> bool:
        return self._hall is not None and port == self._hall.port and str(address) == HOST

    def _is_stub(self, address: Address, port: int) -> bool:
        """Tell whether it is names that are asked for there, of whatever server."""
        if port != DNS_PORT or fakes.is_fake(address):
            return False
        return not self._rules.address(address, port)

    def _note_nobody(self, call: Call) -> None:
        if not listens(call.pid, call.port):
            place = _place(call.address, call.port)
            self._refusals.blocked(place, place, "nothing of this run listens there")

    def _may(self, address: Address, port: int, *, expected: bool = False) -> bool:
        """Tell whether a place inside leads anywhere; says so where it does not."""
        name = self._book.name(address) if fakes.is_fake(address) else None
        if name is not None:
            if self._rules.name(name, port):
                return True
            self._refusals.blocked(f"{name}:{port}", f"{name}:{port}")
            return False
        if expected and (kind(address) is Kind.LOOPBACK or int(address) == 0):
            return True
        if self._rules.address(address, port):
            return True
        place = _place(address, port)
        self._refusals.blocked(place, place if _can_be_listed(address) else None)
        return False

    # ── Connections ──

    def _full(self, most: int) -> None:
        text = f"more than {most} connections at once: further ones wait"
        self._refusals.say(Level.WARN, text)

    async def _guarded(self, inner: socket.socket) -> None:
        """Serve a connection; whatever goes wrong ends it and nothing else."""
        clean = False
        try:
            clean = await self._through(inner)
        except OSError:
            pass  # it was broken off inside
        except Exception:
            log.exception("a connection met a fault of the gate")
        finally:
            if not clean:
                break_off(inner)
            self._entrance.done(inner)

    async def _through(self, inner: socket.socket) -> bool:
        place = self._place_of(inner)
        if place is None:
            return False
        address, port = place
        if self._is_proxy(address, port):
            return await self._by_proxy(inner)
        if self._is_stub(address, port):
            return await answer_stream(inner, self._look_up)
        if not self._may(address, port):
            return False
        outer = await self._connect(address, port)
        return outer is not None and await self._pump(inner, outer)

    def _place_of(self, inner: socket.socket) -> tuple[Address, int] | None:
        """Tell where the run meant to connect to; None for a stranger's connection."""
        if self._hall is not None:
            return self._hall.place(inner)
        host, port = inner.getsockname()[:2]
        address = parse(host)
        return None if address is None else (address, port)

    async def _by_proxy(self, inner: socket.socket) -> bool:
        """Do what a client asks of a proxy."""
        loop = asyncio.get_running_loop()
        try:
            wish = await proxy.read(inner)
        except proxy.Unclear:
            return True
        address = self._meant(wish.host)
        if address is None or not self._may(address, wish.port):
            await loop.sock_sendall(inner, wish.refused)
            return True
        outer = await self._connect(address, wish.port)
        if outer is None:
            await loop.sock_sendall(inner, wish.failed)
            return True
        try:
            await loop.sock_sendall(inner, wish.done)
            await loop.sock_sendall(outer, wish.first)
        except BaseException:
            self._outside.release(outer)
            raise
        return await self._pump(inner, outer)

    def _meant(self, host: str) -> Address | None:
        """Give the address inside that a host stands for, as a name server here would."""
        address = parse(host)
        if address is not None:
            return address
        name = host.lower().removesuffix(".")
        found = self._look_up(name, dns.A) if dns.is_name(name) else None
        return found[0] if found is not None else None

    async def _pump(self, inner: socket.socket, outer: socket.socket) -> bool:
        pump = Pump(inner, outer, self._outside.buffer)
        self._pumps.add(pump)
        if self._closed:
            pump.last()
        clean = False
        try:
            clean = await pump.run(IDLE_S)
        finally:
            if not clean:
                break_off(outer)
            self._outside.release(outer)
            self._pumps.discard(pump)
            self._count(pump)
        return clean

    async def _connect(self, inside: Address, port: int) -> socket.socket | None:
        """Connect to what an address inside stands for, or say why not."""
        name = self._book.name(inside) if fakes.is_fake(inside) else None
        place = f"{name}:{port}" if name else _place(inside, port)
        failure = "it has no address"
        try:
            for address in await self._targets(name, inside, port):
                if len(self._reached) < _MOST_REACHED:
                    self._reached[place] = None
                try:
                    return await self._outside.connect(address, port)
                except OSError as error:
                    failure = _text(error)
        except _Refused as refused:
            self._refusals.blocked(place, refused.rule, refused.why)
            return None
        except OSError as error:
            failure = _text(error)
        self._refusals.say(Level.WARN, f"cannot connect to {place}: {failure}")
        return None

    async def _targets(self, name: str | None, inside: Address, port: int) -> list[Address]:
        """Give the judged addresses to try. Raises ``_Refused``, ``OSError``."""
        if name is None:
            local = inside in LOOPBACK and self._rules.localhost(port)
            found = LOOPBACK if local else (inside,)
            may = list(found)
        else:
            found = await self._outside.look_up(name)
            may = [each for each in found if self._rules.leads(name, each, port)]
        if found and not may:
            what = kind(found[0]).value
            why = f"it leads to a {what} address, which must be listed too"
            rule = _place(found[0], port) if _can_be_listed(found[0]) else None
            raise _Refused(rule, why)
        for each in may:
            if self._outside.is_server(each, port):
                raise _Refused(
                    None, "this is the server itself; use the SDK and permissions.dicode"
                )
        return may

    def _count(self, pump: Pump) -> None:
        was = self.counted
        self.counted = Counted(
            was.connections + 1, was.sent + pump.sent, was.received + pump.received
        )


class _Refused(Exception):
    """A place may not be connected to. ``rule`` would allow it."""

    def __init__(self, rule: str | None, why: str) -> None:
        super().__init__(why)
        self.rule = rule
        self.why = why


def _text(error: OSError) -> str:
    # asyncio words what the kernel said anew, with the address that was tried.
    number = 0 if isinstance(error, socket.gaierror) else error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or str(error)


def _can_be_listed(address: Address) -> bool:
    """Tell whether to propose an address for the manifest.

    A neighbour on the wire is not: in a cloud one of them hands out the machine's own keys.
    """
    return kind(address) in (Kind.PUBLIC, Kind.PRIVATE, Kind.LOOPBACK) and not fakes.is_fake(
        address
    )


def _place(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
