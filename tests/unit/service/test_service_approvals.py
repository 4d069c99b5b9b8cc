"""Which versions an approval lets in."""

from __future__ import annotations

from pathlib import Path

from dicode_mcp.protocols import Approval
from dicode_mcp.service.approvals import Approvals
from dicode_mcp.spec.model import Task, TaskSpec

SPEC = TaskSpec.model_validate({"name": "x", "runtime": "python", "trigger": {"manual": True}})
FIRST, SECOND = "1" * 40, "2" * 40


def version(digest: str = "a", revision: str | None = FIRST, task_id: str = "x") -> Task:
    return Task(task_id, SPEC, Path("/x"), None, digest * 64, "s", revision)


def approval(digest: str = "a", revision: str | None = FIRST) -> Approval:
    return Approval("x", digest * 64, 1, "ann", revision)


def test_what_the_user_configured_needs_no_approval() -> None:
    assert Approvals({}).gate(version(), "trusted") is None


def test_what_is_others_waits_and_says_what_to_call_with_the_whole_hash() -> None:
    wait = Approvals({}).gate(version(), "untrusted")
    assert wait
    assert (wait.status, wait.reason) == (False, "PendingApproval")
    assert "approve_task" in wait.message
    assert "a" * 64 in wait.message


def test_an_approval_is_for_one_hash_of_one_id_at_one_commit() -> None:
    approvals = Approvals({"x": [approval()]})
    assert approvals.gate(version(), "untrusted") is None
    for other in (version("b"), version(task_id="y"), version(revision=SECOND)):
        assert approvals.gate(other, "untrusted")


def test_a_folder_of_this_machine_has_no_commit_and_git_wants_one() -> None:
    assert Approvals({"x": [approval()]}).gate(version(revision=None), "untrusted") is None
    assert Approvals({"x": [approval(revision=None)]}).gate(version(), "untrusted")


def test_approvals_come_and_go_newest_first() -> None:
    approvals = Approvals({"x": [approval("a"), approval("b")]})
    approvals.add(approval("a", SECOND))
    assert [(a.digest[0], a.revision) for a in approvals.of("x")] == [("a", SECOND), ("b", FIRST)]
    approvals.forget("x")
    assert approvals.gate(version(), "untrusted")
