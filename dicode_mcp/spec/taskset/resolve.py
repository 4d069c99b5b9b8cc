"""From a place to every task it declares: refs followed, layers gathered, nothing merged yet.

Pure and deterministic: what is outside is asked of a ``World``. A fault is its entry's; all else
goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dicode_mcp.spec.ids import check_task_id
from dicode_mcp.spec.problems import Problem, SpecError, choices
from dicode_mcp.spec.taskset.documents import EntryDoc, TaskSetDoc
from dicode_mcp.spec.taskset.lock import LOCK
from dicode_mcp.spec.taskset.merge import Layer
from dicode_mcp.spec.taskset.nesting import entered
from dicode_mcp.spec.taskset.precedence import Frame, is_enabled, layers_of, switch_of
from dicode_mcp.spec.taskset.resolution import Broken, Declared, Off, Resolution, Root
from dicode_mcp.spec.taskset.targets import Fault, Targets
from dicode_mcp.spec.taskset.world import Hit, Lock, Spot, What, World

MAX_TASKS = 50_000
"""How many tasks one source may declare: sets that hold sets twice grow fast."""


def resolve(root: Root, world: World) -> Resolution:
    """Give everything that ``root`` declares; equal worlds give equal answers."""
    walk = _Walk(root, world)
    walk.run()
    return walk.resolution()


class _Walk:
    def __init__(self, root: Root, world: World) -> None:
        self._root = root
        self._world = world
        self._tasks: dict[str, Declared] = {}
        self._broken: dict[str, Broken] = {}
        self._off: list[Off] = []
        self._targets = Targets(world, watched=root.watched)
        self._files: set[Path] = set()
        self._unread: list[Path] = []
        self._problems: list[Problem] = []

    def resolution(self) -> Resolution:
        return Resolution(
            tuple(self._tasks[key] for key in sorted(self._tasks)),
            tuple(self._broken[key] for key in sorted(self._broken)),
            tuple(sorted(self._off, key=lambda off: off.id)),
            frozenset(self._targets.needs),
            frozenset(self._files),
            frozenset(self._targets.outside),
            tuple(self._unread),
            tuple(self._problems),
        )

    def run(self) -> None:
        root = self._root
        if root.inline is not None:
            name = root.inline.name or root.namespace or root.fallback
            self._set(root.inline, Frame(name, root.tree, root.path))
            return
        spot = self._world.look(root.path, root.tree)
        if spot.what is What.SET:
            self._root_set(spot)
        elif spot.what is What.NOTHING:
            fault = Problem(root.tree.name_of(root.path), 0, 0, "", spot.fault)
            name = root.namespace or root.fallback
            self._break(name, root.path, "NotFound", [fault], everything=True)
        else:
            self._folder(spot.path, Frame(root.namespace, root.tree, spot.path))

    def _root_set(self, spot: Spot) -> None:
        root = self._root
        self._files.add(spot.path)
        shown = root.tree.name_of(spot.path)
        try:
            document = self._world.read_set(spot.path, shown)
        except SpecError as error:
            name = root.namespace or root.fallback
            self._break(name, spot.path.parent, "InvalidSet", error.problems, everything=True)
            return
        name = document.name or root.namespace or root.fallback
        chain = ((spot.path, shown),)
        self._set(document, Frame(name, root.tree, spot.path.parent, chain=chain))

    # A set

    def _set(self, document: TaskSetDoc, frame: Frame) -> None:
        try:
            check_task_id(frame.id)
        except ValueError as error:
            hint = "give the set a metadata.name, or the source a name"
            fault = Problem(document.file, 0, 0, "metadata.name", f"the set's name {error}", hint)
            everything = len(frame.chain) <= 1
            self._break(frame.id, frame.folder, "InvalidSet", [fault], everything=everything)
            return
        frame = frame.with_defaults(document)
        lock = self._lock(document, frame)
        for entry in document.entries:
            inner = frame
            if lock is not None and frame.lock is None and lock.holds(entry.key):
                inner = replace(frame, lock=(lock, entry.key))
            self._entry(entry, inner)
        self._check_targets([entry.key for entry in document.entries], frame)

    def _lock(self, document: TaskSetDoc, frame: Frame) -> Lock | None:
        """Give the lock of a set of the user's own. Its file counts also while it is not there."""
        if not frame.tree.own:
            return None
        name = frame.chain[-1][0].name if frame.chain else Path(document.file).name
        self._files.add(frame.folder / LOCK)
        return self._world.lock(frame.folder / name)

    def _check_targets(self, keys: Sequence[str], frame: Frame) -> None:
        for key, layer in frame.unknown_targets(keys):
            place = layer.patch.place
            where = (place.file, place.line, place.column) if place else ("", 0, 0)
            path = f"overrides.entries.{layer.key}"
            fault = Problem(*where, path, "names no entry of this set", choices(key, keys))
            self._break(frame.join(key), frame.folder, "UnknownEntry", [fault])

    def _entry(self, entry: EntryDoc, frame: Frame) -> None:
        task_id = frame.join(entry.key)
        place = f"{entry.file}:{entry.place.line}" if entry.place else entry.file
        if entry.hosts is not None and not self._world.host & set(entry.hosts):
            self._off.append(Off(task_id, "hosts", place))
            return
        layers = layers_of(entry, frame)
        try:
            _refuse(entry, task_id)
            self._follow(entry, frame, layers)
        except Fault as fault:
            if entry.problems or is_enabled(layers):
                self._break(task_id, frame.folder, fault.reason, fault.problems)
            else:
                self._off.append(Off(task_id, "disabled", place))

    def _follow(self, entry: EntryDoc, frame: Frame, layers: tuple[Layer, ...]) -> None:
        if entry.inline is not None:
            self._inline(entry, frame, layers)
            return
        tree, spot = self._targets.follow(entry, frame)
        if spot.what is What.TASK:
            _refuse_targets(entry, frame)
            task_id = frame.join(entry.key)
            self._declare(
                Declared(task_id, spot.path, tree, layers, None, None, frame.folder, entry)
            )
            return
        inner = replace(frame, tree=tree, folder=spot.path).inside(entry)
        if spot.what is What.FOLDER:
            if self._folder(spot.path, inner) == 0:
                shown = tree.name_of(spot.path) or "the repository"
                what = f"no task.yaml and no taskset.yaml in {shown} or below it"
                raise Fault("NotFound", entry.problem(what, "correct the ref, or remove the entry"))
        else:
            self._nested(entry, spot, inner)

    def _inline(self, entry: EntryDoc, frame: Frame, layers: tuple[Layer, ...]) -> None:
        _refuse_targets(entry, frame)
        assert entry.inline is not None
        declared = Declared(
            frame.join(entry.key),
            frame.folder,
            frame.tree,
            layers,
            entry.inline,
            entry.inline.data,
            frame.folder,
            entry,
        )
        self._declare(declared)

    def _nested(self, entry: EntryDoc, spot: Spot, frame: Frame) -> None:
        self._files.add(spot.path)
        document, inner = entered(self._world, entry, spot, frame)
        self._set(document, inner)

    # A folder without a set file

    def _folder(self, folder: Path, frame: Frame) -> int:
        """Declare what a search finds; gives how many places it found or could not look into."""
        below = self._world.search(folder, frame.tree)
        self._unread.extend(below.unread)
        self._problems.extend(below.problems)
        for found in below.hits:
            # a source that is itself a task: its folder may be named after a commit
            hit = replace(found, name=self._root.fallback) if found.folder == folder else found
            entry = EntryDoc(hit.name, frame.tree.name_of(hit.folder))
            if hit.fault is not None:
                self._break(frame.join(hit.name), hit.folder, "InvalidSpec", [hit.fault])
            elif not hit.is_set:
                layers = layers_of(entry, frame)
                self._declare(Declared(frame.join(hit.name), hit.folder, frame.tree, layers))
            else:
                self._found_set(entry, hit, frame)
        self._check_targets([hit.name for hit in below.hits], frame)
        return len(below.hits) + len(below.unread)

    def _found_set(self, entry: EntryDoc, hit: Hit, frame: Frame) -> None:
        spot = self._world.look(hit.folder, frame.tree)
        try:
            if spot.what is What.SET:
                self._nested(entry, spot, frame.inside(entry))
        except Fault as fault:
            self._break(frame.join(hit.name), hit.folder, fault.reason, fault.problems)

    # Results

    def _declare(self, declared: Declared) -> None:
        switch = switch_of(declared.layers)
        if switch is not None and not switch.patch.enabled:
            place = switch.patch.place or (declared.entry.place if declared.entry else None)
            told = f"{place.file}:{place.line}" if place else str(switch)
            self._off.append(Off(declared.id, "disabled", told))
            return
        if declared.id in self._tasks or declared.id in self._broken:
            self._twice(declared.id, declared.entry)
        elif len(self._tasks) >= MAX_TASKS:
            what = f"the source declares more than {MAX_TASKS} tasks; the rest is left out"
            fault = Problem(self._root.tree.name_of(self._root.path), 0, 0, "", what)
            self._problems += [] if fault in self._problems[-1:] else [fault]
        else:
            self._tasks[declared.id] = declared

    def _twice(self, task_id: str, entry: EntryDoc | None) -> None:
        what, hint = f"the id {task_id!r} is declared twice", "rename one of the two entries"
        fault = entry.problem(what, hint) if entry else Problem("", 0, 0, "", what, hint)
        self._problems.append(fault)

    def _break(
        self,
        task_id: str,
        folder: Path,
        reason: str,
        problems: Sequence[Problem],
        *,
        everything: bool = False,
    ) -> None:
        if task_id in self._tasks:
            self._problems.extend(problems)
            return
        broken = Broken(task_id, folder, reason, tuple(problems), everything)
        self._broken.setdefault(task_id, broken)


def _refuse(entry: EntryDoc, task_id: str) -> None:
    """Refuse an entry whose own lines are faulty, or whose place makes no id."""
    if entry.problems:
        raise Fault("InvalidEntry", *entry.problems)
    try:
        check_task_id(task_id)
    except ValueError as error:
        fault = entry.problem(f"its id, made of the names of its sets, {error}", "use other keys")
        raise Fault("InvalidEntry", fault) from None


def _refuse_targets(entry: EntryDoc, frame: Frame) -> None:
    """Refuse ``overrides.entries`` for what is one task."""
    patches = [entry.overrides, *(layer.patch for layer in frame.targets_of(entry.key))]
    if any(patch.entries for patch in patches):
        what = "overrides.entries is for a set, and this entry is one task"
        raise Fault("InvalidEntry", entry.problem(what, "write the values under overrides itself"))
