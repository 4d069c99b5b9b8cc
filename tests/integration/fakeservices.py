"""Services that people are told through, as small servers in this process: HTTP and SMTP."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """One HTTP request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body, read as JSON."""
        return json.loads(self.body)


@dataclass
class Answer:
    """What to answer: a status, headers and a body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b"ok"


class HttpService:
    """Answers with ``answers`` in turn, the last of them for ever."""

    def __init__(self, answers: Sequence[Answer] = (Answer(),)) -> None:
        self.answers = list(answers)
        self.got: list[Received] = []
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[HttpService]:
        """Serve on a free port of this machine."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    def answer(self, request: Received) -> Answer:
        """Give the next answer."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.got.append(Received(head[0].split()[1], headers, body))
            answer = self.answer(self.got[-1])
            sent = {**answer.headers, "Content-Length": str(len(answer.body))}
            lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
            start = f"HTTP/1.1 {answer.status} Some Reason\r\nConnection: close\r\n{lines}\r\n"
            writer.write(start.encode() + answer.body)
            await writer.drain()
        writer.close()


class MailService:
    """An SMTP server that takes what it is given; ``refuse`` are recipients it does not want."""

    def __init__(
        self,
        *,
        context: ssl.SSLContext | None = None,
        tls: bool = False,
        login: tuple[str, str] | None = None,
        refuse: Sequence[str] = (),
    ) -> None:
        self._context = context
        self._tls = tls
        self._login = login
        self._refuse = refuse
        self.mails: list[tuple[str, list[str], str, bool]] = []
        """Sender, recipients, message, and whether the connection was encrypted."""
        self.passwords_in_clear: list[str] = []
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[MailService]:
        """Serve on a free port of this machine."""
        context = self._context if self._tls else None
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        encrypted, sender, to = self._tls, "", list[str]()
        writer.write(b"220 mail.test ESMTP\r\n")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            word = line.upper().split(" ")[0]
            if word == "EHLO":
                extra = [b"250-STARTTLS\r\n"] if self._context and not encrypted else []
                extra += [b"250-AUTH PLAIN\r\n"] if self._login else []
                writer.write(b"250-mail.test\r\n" + b"".join(extra) + b"250 SIZE 1000000\r\n")
            elif word == "STARTTLS" and self._context:
                writer.write(b"220 go on\r\n")
                await writer.start_tls(self._context)
                encrypted = True
            elif word == "AUTH":
                _, user, password = base64.b64decode(line.split(" ")[-1]).decode().split("\0")
                if not encrypted:
                    self.passwords_in_clear.append(password)
                good = (user, password) == self._login
                writer.write(b"235 welcome\r\n" if good else b"535 5.7.8 no such login\r\n")
            elif word == "MAIL":
                sender = line.partition("<")[2].partition(">")[0]
                writer.write(b"250 ok\r\n")
            elif word == "RCPT":
                name = line.partition("<")[2].partition(">")[0]
                if name not in self._refuse:
                    to.append(name)
                writer.write(b"550 no such user\r\n" if name in self._refuse else b"250 ok\r\n")
            elif word == "DATA":
                writer.write(b"354 go on\r\n")
                text = (await reader.readuntil(b"\r\n.\r\n")).decode()
                self.mails.append((sender, to, text.removesuffix(".\r\n"), encrypted))
                writer.write(b"250 taken\r\n")
            elif word == "QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250 ok\r\n")
