"""The variables that hold the server's own credentials, by who named them. Grows and shrinks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator


class Withheld(Collection[str]):
    """Names no task is ever given. Threads may share it: a change replaces what is read."""

    def __init__(self, always: Iterable[str] = ()) -> None:
        self._by_owner: dict[str, frozenset[str]] = {"": frozenset(always)}
        self._all = self._by_owner[""]

    def put(self, owner: str, names: Iterable[str]) -> None:
        """Replace the names that one owner (a source) asks for."""
        wanted = frozenset(names)
        if wanted == self._by_owner.get(owner, frozenset()):
            return
        self._by_owner[owner] = wanted
        self._all = frozenset[str]().union(*self._by_owner.values())

    def __contains__(self, name: object) -> bool:
        """Tell whether a variable is withheld."""
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        """Give the names, sorted."""
        return iter(sorted(self._all))

    def __len__(self) -> int:
        """Count the names."""
        return len(self._all)
