"""Work trees of branches, and commits in them, against real repositories."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dulwich import porcelain
from dulwich.objects import Commit
from dulwich.refs import Ref
from dulwich.repo import Repo

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import GitAuth, GitLimits, GitRef
from dicode_mcp.sources.git.remote import Reach
from dicode_mcp.sources.working.copies import WorkingCopies
from dicode_mcp.sources.working.helper import do
from dicode_mcp.sources.working.model import Answer, Author, CommitOrder, Order
from dicode_mcp.sources.working.names import check_branch
from dicode_mcp.sources.working.wire import ANSWER, ORDER
from dicode_mcp.testing.gitserver import serving
from dicode_mcp.testing.repositories import Remote, a_clone, status

ADA = Author("Ada", "ada@example.com")
FILES = {"hello/task.yaml": "name: hello\n", "hello/task.py": "x = 1\n", "other/data.txt": "o\n"}
AT_S = 1_800_000_000


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote(tmp_path / "remote.git")
    made.commit(FILES)
    return made


class InThisProcess(WorkingCopies):
    """Without the helper process, whose start takes longer than most of what it does."""

    async def _ask(self, order: Order) -> Answer:
        return ANSWER.validate_json(ANSWER.dump_json(do(ORDER.validate_json(dump(order)))))


def dump(order: Order) -> bytes:
    return ORDER.dump_json(order)


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkingCopies:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return InThisProcess(tmp_path / "data", {}, allow_local=True)


@pytest.fixture
def mine(remote: Remote, tmp_path: Path) -> Path:
    top = a_clone(remote, tmp_path / "mine")
    with Repo(str(top)) as repo:
        config = repo.get_config()
        config.set((b"remote", b"origin"), b"url", remote.url.encode())
        config.write_to_path()
    return top


def an_order(folder: Path, message: str = "Change it", **more: object) -> CommitOrder:
    options: dict[str, object] = {"author": ADA, "reach": Reach.ANY, **more}
    return CommitOrder(str(folder), message, AT_S, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "name",
    ["main", "fix/report", "a", "v1.2", "UPPER", "häkchen", "a-b_c", "a.b/c.d", "@x", "x@", "{x}"],
)
def test_branches_that_git_takes_are_taken(name: str) -> None:
    assert check_branch(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "@",
        "HEAD",
        "-x",
        "--force",
        "/x",
        "x/",
        "x//y",
        ".x",
        "x/.y",
        "x.lock",
        "x.lock/y",
        "x.",
        "x..y",
        "../x",
        "x y",
        "x\ty",
        "x\ny",
        "x\x00y",
        "x\x7f",
        "x~1",
        "x^",
        "x:y",
        "x?",
        "x*",
        "x[1]",
        "x\\y",
        "x@{1}",
        "refs/heads/x",
        "\udc80",
        "x" * 201,
    ],
)
def test_branches_that_git_refuses_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is |may |must "):
        check_branch(name)


class TestClones:
    async def test_a_branch_becomes_a_work_tree(
        self, remote: Remote, copies: WorkingCopies
    ) -> None:
        tip = remote.commit({"hello/task.py": "x = 2\n"}, branch="fix/one")
        ref = GitRef(remote.url, trusted=True)
        clone = await copies.open_branch("src", ref, "fix/one")
        top = Path(clone.folder)
        assert top == copies.folder_of("src", "fix/one")
        assert (clone.commit, clone.created, clone.kept) == (tip, False, False)
        assert (top / "hello/task.py").read_text() == "x = 2\n"
        assert status(top) == {"staged": [], "unstaged": [], "untracked": []}
        assert os.stat(top).st_mode & 0o077 == 0

    async def test_a_branch_the_remote_lacks_begins_at_the_source_s_own(
        self, remote: Remote, copies: WorkingCopies
    ) -> None:
        clone = await copies.open_branch("src", GitRef(remote.url, trusted=True), "new")
        assert (clone.commit, clone.created) == (remote.tip(), True)
        assert remote.tip("new") is None

    async def test_without_either_branch_it_is_said(
        self, remote: Remote, copies: WorkingCopies
    ) -> None:
        with pytest.raises(DicodeError) as caught:
            await copies.open_branch("src", GitRef(remote.url, trusted=True, branch="trunk"), "new")
        assert caught.value.code is Code.NOT_FOUND
        assert "'new'" in caught.value.message
        assert not copies.folder_of("src", "new").exists()

    async def test_opening_again_brings_it_up_to_date(
        self, remote: Remote, copies: WorkingCopies
    ) -> None:
        ref = GitRef(remote.url, trusted=True)
        top = Path((await copies.open_branch("src", ref, "main")).folder)
        (top / "note.txt").write_text("mine")
        tip = remote.commit({"hello/task.py": "x = 3\n", "other/data.txt": None, "new/a": "n"})
        clone = await copies.open_branch("src", ref, "main")
        assert (clone.commit, clone.kept) == (tip, False)
        assert (top / "hello/task.py").read_text() == "x = 3\n"
        assert (top / "new/a").read_text() == "n"
        assert not (top / "other").exists()
        assert (top / "note.txt").read_text() == "mine"
        assert status(top) == {"staged": [], "unstaged": [], "untracked": ["note.txt"]}

    async def test_an_edited_work_tree_is_kept_as_it_is(
        self, remote: Remote, copies: WorkingCopies
    ) -> None:
        ref = GitRef(remote.url, trusted=True)
        first = await copies.open_branch("src", ref, "main")
        script = Path(first.folder) / "hello/task.py"
        script.write_text("x = 'mine'\n")
        remote.commit({"hello/task.py": "x = 'theirs'\n"})
        clone = await copies.open_branch("src", ref, "main")
        assert (clone.commit, clone.kept) == (first.commit, True)
        assert script.read_text() == "x = 'mine'\n"

    async def test_commits_of_its_own_are_kept_when_the_remote_moved_on(
        self, remote: Remote, copies: WorkingCopies
    ) -> None:
        ref = GitRef(remote.url, trusted=True)
        top = Path((await copies.open_branch("src", ref, "main")).folder)
        (top / "hello/task.py").write_text("x = 'mine'\n")
        made = await copies.commit(an_order(top / "hello"))
        assert (await copies.open_branch("src", ref, "main")).commit == made.commit
        remote.commit({"other/data.txt": "theirs\n"})
        clone = await copies.open_branch("src", ref, "main")
        assert (clone.commit, clone.kept) == (made.commit, True)

    async def test_a_half_made_work_tree_is_made_again(
        self, remote: Remote, copies: WorkingCopies
    ) -> None:
        top = copies.folder_of("src", "main")
        half = top.with_name("main.making")
        (half / ".git").mkdir(parents=True)
        top.mkdir()
        clone = await copies.open_branch("src", GitRef(remote.url, trusted=True), "main")
        assert (Path(clone.folder) / "hello/task.py").exists()
        assert not half.exists()

    @pytest.mark.parametrize(
        ("name", "mode"),
        [
            (b".git", 0o100644),
            (b".GIT", 0o100644),
            (b"git~1", 0o100644),
            (b"..", 0o100644),
            (".g\u200cit".encode(), 0o100644),
            (b".git ", 0o100644),
            (b"a\\..\\b", 0o100644),
        ],
    )
    async def test_a_hostile_tree_writes_nothing(
        self, remote: Remote, copies: WorkingCopies, tmp_path: Path, name: bytes, mode: int
    ) -> None:
        remote.commit({}, branch="bad", extra={name: (mode, b"[core]\nhooksPath = /tmp\n")})
        with pytest.raises(DicodeError) as caught:
            await copies.open_branch("src", GitRef(remote.url, trusted=True), "bad")
        assert caught.value.code in (Code.FORBIDDEN, Code.NOT_SUPPORTED)
        assert not copies.folder_of("src", "bad").exists()

    async def test_links_of_a_repository_are_not_made(
        self, remote: Remote, copies: WorkingCopies
    ) -> None:
        remote.commit({}, branch="bad", extra={b"link": (0o120000, b"/etc")})
        clone = await copies.open_branch("src", GitRef(remote.url, trusted=True), "bad")
        assert "link" not in os.listdir(clone.folder)

    async def test_limits_of_the_source_hold(self, remote: Remote, copies: WorkingCopies) -> None:
        for limits in (GitLimits(max_files=2), GitLimits(max_total_size=5)):
            with pytest.raises(DicodeError) as caught:
                await copies.open_branch(
                    "src", GitRef(remote.url, trusted=True, limits=limits), "main"
                )
            assert caught.value.code is Code.TOO_LARGE

    async def test_a_token_that_is_not_set_is_named(
        self, remote: Remote, copies: WorkingCopies
    ) -> None:
        ref = GitRef("https://localhost/x.git", trusted=True, auth=GitAuth(token_env="MY_TOKEN"))
        with pytest.raises(DicodeError) as caught:
            await copies.open_branch("src", ref, "main")
        assert caught.value.code is Code.SECRET_MISSING
        assert "MY_TOKEN" in caught.value.message

    async def test_a_remote_that_is_not_there_is_said(
        self, tmp_path: Path, copies: WorkingCopies
    ) -> None:
        with pytest.raises(DicodeError) as caught:
            await copies.open_branch(
                "src", GitRef(f"file://{tmp_path}/nothing.git", trusted=True), "main"
            )
        assert caught.value.code in (Code.NOT_FOUND, Code.UNREACHABLE)


class TestCommits:
    async def test_only_the_task_s_folder_is_committed(
        self, copies: WorkingCopies, mine: Path
    ) -> None:
        (mine / "hello/task.py").write_text("x = 2\ny = 3\n")
        (mine / "hello/new.txt").write_text("n\n")
        (mine / "hello/task.yaml").unlink()
        (mine / "other/data.txt").write_text("not to be committed\n")
        (mine / "staged.txt").write_text("staged by a person")
        porcelain.add(str(mine), [str(mine / "staged.txt")])
        made = await copies.commit(an_order(mine / "hello", "Subject\n\nbody"))
        assert made.branch == "main"
        assert [(f.path, f.change, f.added, f.removed) for f in made.files] == [
            ("new.txt", "added", 1, 0),
            ("task.py", "modified", 2, 1),
            ("task.yaml", "deleted", 0, 1),
        ]
        with Repo(str(mine)) as repo:
            commit = repo[repo.head()]
        assert isinstance(commit, Commit)
        assert commit.id.decode() == made.commit
        assert commit.message == b"Subject\n\nbody\n"
        assert commit.author == b"Ada <ada@example.com>"
        assert commit.commit_time == AT_S
        assert status(mine) == {
            "staged": ["staged.txt"],
            "unstaged": ["other/data.txt"],
            "untracked": [],
        }

    async def test_what_is_no_part_of_a_task_stays_out(
        self, copies: WorkingCopies, mine: Path
    ) -> None:
        (mine / ".gitignore").write_text("*.log\nbuild/\n")
        for name in (".env", "run.log", "build/x", "task.py~", "lib/ok.py", "lib/.secret"):
            (mine / "hello" / name).parent.mkdir(exist_ok=True)
            (mine / "hello" / name).write_text("s")
        (mine / "hello/link").symlink_to("/etc/passwd")
        made = await copies.commit(an_order(mine / "hello"))
        assert [f.path for f in made.files] == ["lib/ok.py"]
        assert set(made.skipped) == {
            ".env",
            "build/",
            "lib/.secret",
            "link",
            "run.log",
            "task.py~",
        }

    async def test_a_commit_goes_to_another_branch_without_a_checkout(
        self, copies: WorkingCopies, remote: Remote, mine: Path
    ) -> None:
        (mine / "hello/task.py").write_text("x = 2\n")
        made = await copies.commit(an_order(mine / "hello", branch="fix/two", push=True))
        assert (made.branch, made.pushed) == ("fix/two", True)
        assert remote.read("fix/two") == {**FILES, "hello/task.py": "x = 2\n"}
        assert remote.read("main") == FILES
        with Repo(str(mine)) as repo:
            assert repo.refs.read_ref(Ref(b"HEAD")) == b"ref: refs/heads/main"
        assert status(mine)["unstaged"] == ["hello/task.py"]

    async def test_a_push_reaches_the_remote_and_a_second_one_says_so_too(
        self, copies: WorkingCopies, remote: Remote, mine: Path
    ) -> None:
        (mine / "hello/task.py").write_text("x = 2\n")
        first = await copies.commit(an_order(mine / "hello"))
        assert remote.tip() != first.commit
        second = await copies.commit(an_order(mine / "hello", push=True))
        assert (second.commit, second.pushed, second.files) == (first.commit, True, ())
        assert remote.tip() == first.commit

    async def test_a_push_is_never_forced(
        self, copies: WorkingCopies, remote: Remote, mine: Path
    ) -> None:
        theirs = remote.commit({"hello/task.py": "x = 'theirs'\n"})
        (mine / "hello/task.py").write_text("x = 'mine'\n")
        with pytest.raises(DicodeError) as caught:
            await copies.commit(an_order(mine / "hello", push=True))
        assert caught.value.code is Code.CONFLICT
        assert caught.value.data["pushed"] is False
        assert remote.tip() == theirs
        with Repo(str(mine)) as repo:
            assert repo.head().decode() == caught.value.data["commit"]
        other = await copies.commit(an_order(mine / "hello", push=True, branch="mine"))
        assert other.pushed
        assert remote.tip() == theirs
        assert remote.tip("mine") == other.commit

    async def test_nothing_to_commit_is_said(self, copies: WorkingCopies, mine: Path) -> None:
        with pytest.raises(DicodeError, match="nothing to commit") as caught:
            await copies.commit(an_order(mine / "hello"))
        assert caught.value.code is Code.CONFLICT

    async def test_a_task_that_is_the_whole_repository_is_committed(
        self, copies: WorkingCopies, tmp_path: Path
    ) -> None:
        top = tmp_path / "solo"
        top.mkdir()
        Repo.init(str(top), default_branch=b"main").close()
        (top / "task.py").write_text("x = 1\n")
        made = await copies.commit(an_order(top))
        assert [f.path for f in made.files] == ["task.py"]
        (top / "task.py").unlink()
        made = await copies.commit(an_order(top))
        assert [(f.path, f.change) for f in made.files] == [("task.py", "deleted")]

    async def test_the_author_is_git_s_own_unless_given(
        self, copies: WorkingCopies, mine: Path, tmp_path: Path
    ) -> None:
        (mine / "hello/task.py").write_text("x = 2\n")
        with pytest.raises(DicodeError) as caught:
            await copies.commit(an_order(mine / "hello", author=None))
        assert caught.value.code is Code.INVALID_ARGUMENT
        config = "[user]\n\tname = Grace\n\temail = grace@example.com\n"
        (tmp_path / "home/.gitconfig").write_text(config)
        made = await copies.commit(an_order(mine / "hello", author=None))
        assert made.author == "Grace <grace@example.com>"


def detached(top: Path) -> None:
    with Repo(str(top)) as repo:
        (top / ".git/HEAD").write_bytes(repo.head() + b"\n")


def merging(top: Path) -> None:
    (top / ".git/MERGE_HEAD").write_text("0" * 40)


def hooked(top: Path) -> None:
    hook = top / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch ../ran\n")
    hook.chmod(0o755)


def hooked_elsewhere(top: Path) -> None:
    hook = top / "husky/pre-push"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    with (top / ".git/config").open("a") as config:
        config.write("[core]\n\thooksPath = husky\n")


def signing(top: Path) -> None:
    with (top / ".git/config").open("a") as config:
        config.write("[commit]\n\tgpgsign = true\n")


def locked(top: Path) -> None:
    (top / ".git/index.lock").touch()


@pytest.mark.parametrize(
    "spoil",
    [detached, merging, hooked, hooked_elsewhere, signing, locked],
    ids=lambda f: f.__name__,
)
async def test_a_repository_that_wants_a_person_is_left_alone(
    copies: WorkingCopies, mine: Path, spoil: Callable[[Path], None]
) -> None:
    (mine / "hello/task.py").write_text("x = 2\n")
    with Repo(str(mine)) as repo:
        before = repo.refs[Ref(b"refs/heads/main")]
    spoil(mine)
    with pytest.raises(DicodeError) as caught:
        await copies.commit(an_order(mine / "hello"))
    assert caught.value.code in (Code.CONFLICT, Code.NOT_SUPPORTED)
    assert caught.value.hint
    with Repo(str(mine)) as repo:
        assert repo.refs[Ref(b"refs/heads/main")] == before
    assert not (mine.parent / "ran").exists()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ext::sh -c touch% ran", Code.FORBIDDEN),
        ("/somewhere/else.git", Code.FORBIDDEN),
        ("../else.git", Code.FORBIDDEN),
        ("http://example.com/x.git", Code.FORBIDDEN),
        ("https://me:token@example.com/x.git", Code.FORBIDDEN),
        ("-oProxyCommand=touch", Code.FORBIDDEN),
    ],
)
async def test_an_origin_that_is_no_plain_remote_is_not_pushed_to(
    copies: WorkingCopies, mine: Path, url: str, code: Code
) -> None:
    with Repo(str(mine)) as repo:
        config = repo.get_config()
        config.set((b"remote", b"origin"), b"url", url.encode())
        config.write_to_path()
    (mine / "hello/task.py").write_text("x = 2\n")
    with pytest.raises(DicodeError) as caught:
        await copies.commit(an_order(mine / "hello", push=True, reach=Reach.NETWORK))
    assert caught.value.code is code
    assert "token@" not in str(caught.value.as_dict())


async def test_a_folder_outside_of_git_is_said_to_be(copies: WorkingCopies, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(DicodeError, match="not in a git work tree"):
        await copies.commit(an_order(tmp_path / "plain"))


async def test_the_work_is_done_in_a_process_of_its_own(
    tmp_path: Path, remote: Remote, mine: Path
) -> None:
    copies = WorkingCopies(tmp_path / "data", os.environ, allow_local=True)
    clone = await copies.open_branch("src", GitRef(remote.url, trusted=True), "main")
    script = Path(clone.folder) / "hello/task.py"
    script.write_text("x = 2\n")
    access = copies.remote_of(GitRef(remote.url, trusted=True))
    made = await copies.commit(an_order(script.parent, push=True, remote=access))
    assert remote.tip() == made.commit
    with pytest.raises(DicodeError, match="nothing to commit"):
        await copies.commit(an_order(script.parent))


async def test_a_push_over_http_carries_the_configured_token(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "MY_TOKEN": "t0p-s3cret"}
    copies = InThisProcess(tmp_path / "data", environ, allow_local=True)
    with serving(tmp_path / "served") as server:
        repository = server.repository()
        repository.commit(FILES)
        server.token = "t0p-s3cret"
        ref = GitRef(server.url_of(), trusted=True, auth=GitAuth(token_env="MY_TOKEN"))
        clone = await copies.open_branch("src", ref, "fix/it")
        config = (Path(clone.folder) / ".git/config").read_text()
        assert "t0p-s3cret" not in config
        (Path(clone.folder) / "hello/task.py").write_text("x = 2\n")
        access = copies.remote_of(ref)
        made = await copies.commit(an_order(Path(clone.folder) / "hello", push=True, remote=access))
        assert repository.head("fix/it") == made.commit
        server.token = "another"
        (Path(clone.folder) / "hello/task.py").write_text("x = 3\n")
        with pytest.raises(DicodeError) as caught:
            await copies.commit(an_order(Path(clone.folder) / "hello", push=True, remote=access))
        assert caught.value.code is Code.UNAUTHENTICATED
        assert caught.value.data["pushed"] is False
        assert "t0p-s3cret" not in str(caught.value.as_dict())
        again = await copies.commit(
            an_order(
                Path(clone.folder) / "hello",
                push=True,
                remote=replace(access, password="another"),
            )
        )
        assert again.commit == caught.value.data["commit"] == repository.head("fix/it")


async def test_a_push_that_the_remote_s_own_rules_refuse_is_told(tmp_path: Path) -> None:
    copies = InThisProcess(tmp_path / "data", {"PATH": os.environ["PATH"]}, allow_local=True)
    with serving(tmp_path / "served") as server:
        repository = server.repository()
        repository.commit(FILES)
        ref = GitRef(server.url_of(), trusted=True)
        clone = await copies.open_branch("src", ref, "main")
        hook = repository.path / "hooks/update"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
        before = repository.head()
        (Path(clone.folder) / "hello/task.py").write_text("x = 2\n")
        order = an_order(Path(clone.folder) / "hello", push=True, remote=copies.remote_of(ref))
        with pytest.raises(DicodeError, match="refuses the push to main") as caught:
            await copies.commit(order)
        assert caught.value.code is Code.CONFLICT
        assert repository.head() == before


async def test_a_helper_that_takes_too_long_is_ended(tmp_path: Path, remote: Remote) -> None:
    copies = WorkingCopies(tmp_path / "data", {}, allow_local=True, wait_s=0.01)
    with pytest.raises(DicodeError) as caught:
        await copies.open_branch("src", GitRef(remote.url, trusted=True), "main")
    assert caught.value.code is Code.UNREACHABLE
