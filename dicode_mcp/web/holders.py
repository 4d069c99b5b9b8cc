"""Which process holds the socket at the other end of a connection, and whose work that process is.

Blocking; when it is asked, and by whom, is the callers' affair.

A connection passes only when a client is *seen* to hold it. That no task is seen to hold it would
prove nothing: a descriptor can be on its way through a unix socket, in a thread's own table or in
an io_uring, where no listing shows it.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping

from dicode_mcp.executor.carriers import carries
from dicode_mcp.executor.lineage import Lineage, Origin, descendants, lineage
from dicode_mcp.executor.tree import PROC, all_pids, read_stat

_PASSES = 2
_REMEMBERED = 16


class SocketHolders:
    """Looks sockets up by inode. Remembers clients, whose next connection is then found at once."""

    def __init__(self, own_pid: int, proc: str = PROC) -> None:
        self._own_pid = own_pid
        self._proc = proc
        self._clients: OrderedDict[int, int] = OrderedDict()
        self._looking = threading.Lock()

    def look(self, inodes: Collection[int]) -> Mapping[int, Lineage]:
        """Tell whose each socket is; one that nobody is seen to hold is of UNKNOWN origin.

        Tasks come first: a socket that a client and a task share is the task's.
        """
        # A caller that leaves does not stop its look; the next one waits for it.
        with self._looking:
            return self._look(inodes)

    def _look(self, inodes: Collection[int]) -> dict[int, Lineage]:
        found: dict[int, Lineage] = {}
        wanted = {f"socket:[{inode}]": inode for inode in inodes}
        for step in (self._among_tasks, self._among_clients, *[self._among_all] * _PASSES):
            if wanted:
                found |= step(wanted)
                wanted = {link: inode for link, inode in wanted.items() if inode not in found}
        return found | {inode: Lineage(Origin.UNKNOWN) for inode in wanted.values()}

    def _among_tasks(self, wanted: Mapping[str, int]) -> dict[int, Lineage]:
        """Look below the server. What cannot be read there is no client either, so it may stay."""
        found: dict[int, Lineage] = {}
        for pid in descendants(self._own_pid, self._proc):
            for inode in self._held(pid, wanted):
                run_id = lineage(pid, self._own_pid, self._proc).run_id
                found[inode] = Lineage(Origin.TASK, pid, run_id)
        return found

    def _among_clients(self, wanted: Mapping[str, int]) -> dict[int, Lineage]:
        found: dict[int, Lineage] = {}
        for pid, start in reversed(list(self._clients.items())):
            held = self._held(pid, wanted)
            # Asked afterwards: then it was this process, not another of its number, that held it.
            if self._start(pid) != start:
                del self._clients[pid]
            elif held and self._is_carrier(pid):
                del self._clients[pid]
                found |= dict.fromkeys(held, Lineage(Origin.TASK, pid))
            elif held:
                self._clients.move_to_end(pid)
                found |= dict.fromkeys(held, Lineage(Origin.CLIENT, pid))
            if len(found) == len(wanted):
                break
        return found

    def _among_all(self, wanted: Mapping[str, int]) -> dict[int, Lineage]:
        found: dict[int, Lineage] = {}
        for pid in self._newest_first():
            if self._held(pid, wanted):
                found |= self._judged(pid, wanted)
            if len(found) == len(wanted):
                break
        return found

    def _newest_first(self) -> list[int]:
        """A connection is new, so is often its process. The server itself has the most to read."""
        others = sorted(set(all_pids(self._proc)) - {self._own_pid}, reverse=True)
        return [*others, self._own_pid]

    def _judged(self, pid: int, wanted: Mapping[str, int]) -> dict[int, Lineage]:
        start = self._start(pid)
        judged = lineage(pid, self._own_pid, self._proc)
        if judged.origin is Origin.CLIENT and self._is_carrier(pid):
            judged = Lineage(Origin.TASK, pid)
        held = self._held(pid, wanted)
        # Another process may have got the number meanwhile: nothing is known then.
        if start is None or self._start(pid) != start:
            return {}
        if judged.origin is Origin.CLIENT and held:
            self._remember(pid, start)
        return dict.fromkeys(held, judged)

    def _is_carrier(self, pid: int) -> bool:
        """Tell whether a process is a server that connects for its tasks; of our own we know."""
        return pid != self._own_pid and carries(pid, self._proc)

    def _remember(self, pid: int, start: int) -> None:
        self._clients[pid] = start
        if len(self._clients) > _REMEMBERED:
            self._clients.popitem(last=False)

    def _start(self, pid: int) -> int | None:
        stat = read_stat(pid, self._proc)
        return stat.start if stat is not None else None

    def _held(self, pid: int, wanted: Mapping[str, int]) -> list[int]:
        return [wanted[link] for link in self._links(pid) if link in wanted]

    def _links(self, pid: int) -> Iterator[str]:
        folder = f"{self._proc}/{pid}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            return
        for name in names:
            try:
                yield os.readlink(f"{folder}/{name}")
            except OSError:
                continue
