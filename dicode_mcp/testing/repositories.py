"""Repositories for tests: a bare one that stands for the remote, and clones of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dulwich import porcelain
from dulwich.objects import Blob, Commit, ObjectID, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo

MAIN = Ref(b"refs/heads/main")
ME = b"Test <test@example.com>"


class Remote:
    """A bare repository whose branches the test moves."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.url = f"file://{folder}"
        Repo.init_bare(folder, default_branch=b"main").close()

    def commit(
        self,
        files: Mapping[str, str | None],
        *,
        branch: str = "main",
        extra: Mapping[bytes, tuple[int, bytes]] | None = None,
    ) -> str:
        """Add a commit that sets files (None removes one); ``extra`` entries go to the root."""
        ref = Ref(b"refs/heads/" + branch.encode())
        with Repo(str(self.folder)) as repo:
            parent = repo.refs[ref] if ref in repo.refs else None
            entries = self._files(repo, parent)
            for path, text in files.items():
                entries.pop(path, None)
                if text is not None:
                    entries[path] = text
            made = Commit()
            made.tree = self._tree(repo, entries, extra or {})
            made.parents = [parent] if parent else []
            made.author = made.committer = ME
            made.author_time = made.commit_time = 1_700_000_000
            made.author_timezone = made.commit_timezone = 0
            made.message = b"made by the test\n"
            repo.object_store.add_object(made)
            repo.refs[ref] = made.id
            return made.id.decode()

    def read(self, branch: str = "main") -> dict[str, str]:
        """Give the files of a branch."""
        with Repo(str(self.folder)) as repo:
            return self._files(repo, repo.refs[Ref(b"refs/heads/" + branch.encode())])

    def tip(self, branch: str = "main") -> str | None:
        """Give a branch's commit."""
        ref = Ref(b"refs/heads/" + branch.encode())
        with Repo(str(self.folder)) as repo:
            return repo.refs[ref].decode() if ref in repo.refs else None

    def log(self, branch: str = "main") -> list[Commit]:
        """Give a branch's commits, newest first."""
        with Repo(str(self.folder)) as repo:
            tip = repo.refs[Ref(b"refs/heads/" + branch.encode())]
            return [entry.commit for entry in repo.get_walker(include=[tip])]

    def _files(self, repo: Repo, commit: ObjectID | None) -> dict[str, str]:
        if commit is None:
            return {}
        found = repo[commit]
        assert isinstance(found, Commit)
        out: dict[str, str] = {}
        for entry in repo.object_store.iter_tree_contents(found.tree):
            blob = repo[entry.sha]
            assert isinstance(blob, Blob)
            out[entry.path.decode()] = blob.data.decode()
        return out

    def _tree(
        self, repo: Repo, entries: Mapping[str, str], extra: Mapping[bytes, tuple[int, bytes]]
    ) -> ObjectID:
        tree = Tree()
        below: dict[str, dict[str, str]] = {}
        for path, text in entries.items():
            name, slash, rest = path.partition("/")
            if slash:
                below.setdefault(name, {})[rest] = text
                continue
            blob = Blob.from_string(text.encode())
            repo.object_store.add_object(blob)
            tree.add(name.encode(), 0o100644, blob.id)
        for name, files in below.items():
            tree.add(name.encode(), 0o040000, self._tree(repo, files, {}))
        for name, (mode, data) in extra.items():
            blob = Blob.from_string(data)
            repo.object_store.add_object(blob)
            tree.add(name, mode, blob.id)
        repo.object_store.add_object(tree)
        return tree.id


def a_clone(remote: Remote, folder: Path) -> Path:
    """Clone as a person does."""
    porcelain.clone(str(remote.folder), str(folder), errstream=porcelain.NoneStream()).close()
    return folder


def status(folder: Path) -> dict[str, list[str]]:
    """Give what git would show as changed: staged, unstaged and untracked paths."""
    found: Any = porcelain.status(str(folder), untracked_files="all")
    staged = [path for paths in found.staged.values() for path in paths]
    return {
        "staged": sorted(_text(path) for path in staged),
        "unstaged": sorted(_text(path) for path in found.unstaged),
        "untracked": sorted(_text(path) for path in found.untracked),
    }


def _text(path: Any) -> str:
    return path.decode() if isinstance(path, bytes) else path
