"""What registries offer, as values: which offers fit a search, and which one a name means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec.giturl import short_url
from dicode_mcp.spec.taskset.documents import Ref

_NEAR = 0.6
_MOST_NAMES = 5
_EXACT, _PREFIX, _NAME, _DESCRIPTION = range(4)
"""How well a word fits, best first."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A task (or set of tasks) that a registry offers.

    ``path`` is its key in the registry, ``repo`` where it is, as people write it. ``ref`` leads to
    it, so an entry of any TaskSet may have it; None when the task is written in the registry's own
    file. ``own``: it is in the registry's repository, which dicode.yaml names.
    """

    path: str
    name: str
    description: str
    tags: tuple[str, ...]
    repo: str
    ref: Ref | None
    registry: str = ""
    own: bool = False

    @property
    def full(self) -> str:
        """The path with the registry's name before it, which no other offer has."""
        return f"{self.registry}:{self.path}"


def words_of(query: str) -> list[str]:
    """Give the words of a search. Raises INVALID_ARGUMENT when there is none."""
    words = query.casefold().split()
    if not words:
        raise DicodeError(
            Code.INVALID_ARGUMENT, "query holds no word", hint='name one, e.g. "monitoring"'
        )
    return words


def matching(offers: Iterable[Offer], words: Sequence[str]) -> list[Offer]:
    """Give the offers that every word fits, best first; else in the order they are given."""
    ranked: list[tuple[tuple[int, ...], Offer]] = []
    for offer in offers:
        ranks = [_rank(offer, word) for word in words]
        fits = [rank for rank in ranks if rank is not None]
        if len(fits) == len(words):
            whole = _rank(offer, " ".join(words)) if len(words) > 1 else None
            best = _DESCRIPTION + 1 if whole is None else whole
            ranked.append(((max(fits), sum(fits), best), offer))
    return [offer for _, offer in sorted(ranked, key=lambda pair: pair[0])]


def _rank(offer: Offer, word: str) -> int | None:
    path, name = offer.path.casefold(), offer.name.casefold()
    tags = [tag.casefold() for tag in offer.tags]
    if word in (path, path.rpartition("/")[2], name):
        return _EXACT
    if path.startswith(word) or any(part.startswith(word) for part in path.split("/")):
        return _PREFIX
    if word in name or word in path or any(word in tag for tag in tags):
        return _NAME
    return _DESCRIPTION if word in offer.description.casefold() else None


def chosen(offers: Sequence[Offer], name: str) -> Offer:
    """Give the offer a name means: its path, else the only one whose path ends with it.

    ``REGISTRY:PATH`` names the registry too. Raises NOT_FOUND with the nearest paths, and CONFLICT
    with the candidates when several are meant.
    """
    wanted = name.strip().strip("/")
    exact = [offer for offer in offers if wanted in (offer.path, offer.full)]
    found = exact or [offer for offer in offers if offer.path.endswith(f"/{wanted}")]
    if not found:
        raise _unknown(offers, wanted)
    if len({(offer.ref, offer.path if offer.ref is None else "") for offer in found}) > 1:
        raise _ambiguous(found, wanted)
    return found[0]


def _unknown(offers: Sequence[Offer], name: str) -> DicodeError:
    near = _nearest(offers, name)
    closest = f" Closest: {', '.join(near)}." if near else ""
    return DicodeError(
        Code.NOT_FOUND,
        f"no registry offers {name[:128]!r}.{closest}",
        hint="search_tasks finds what there is",
        data={"closest": near} if near else None,
    )


def _nearest(offers: Sequence[Offer], name: str) -> list[str]:
    by_word: dict[str, list[str]] = {}
    for offer in offers:
        path = offer.path.casefold()
        for word in dict.fromkeys((path, path.rpartition("/")[2])):
            by_word.setdefault(word, []).append(offer.path)
    wanted = name.casefold()
    close: list[str] = []
    for word in dict.fromkeys((wanted, wanted.rpartition("/")[2])):
        close += get_close_matches(word, by_word, n=_MOST_NAMES, cutoff=_NEAR)
    return list(dict.fromkeys(path for word in close for path in by_word[word]))[:_MOST_NAMES]


def _ambiguous(found: Sequence[Offer], name: str) -> DicodeError:
    same = len({offer.path for offer in found}) < len(found)
    names = [offer.full if same else offer.path for offer in found]
    return DicodeError(
        Code.CONFLICT,
        f"{name[:128]!r} may mean {', '.join(names)}",
        hint="give one of these names whole",
        data={"candidates": names},
    )


def repository_of(url: str) -> str:
    """Give what two URLs of one repository have in common, however each is written."""
    return short_url(url).replace(":", "/", 1)
