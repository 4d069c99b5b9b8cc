"""All use cases in one value, for the surfaces."""

from __future__ import annotations

from dataclasses import dataclass

from dicode_mcp.service.approvals import ApprovalsService
from dicode_mcp.service.authoring import AuthoringService
from dicode_mcp.service.dev_mode import DevModeService
from dicode_mcp.service.history import HistoryService
from dicode_mcp.service.hooks import HooksService
from dicode_mcp.service.inside import Inside
from dicode_mcp.service.invitations import Invitations
from dicode_mcp.service.keys import Keys
from dicode_mcp.service.permissions import PermissionsService
from dicode_mcp.service.pushes import PushService
from dicode_mcp.service.questions import QuestionsService
from dicode_mcp.service.registries import Registries
from dicode_mcp.service.replays import ReplayService
from dicode_mcp.service.rotation import KeyRotation
from dicode_mcp.service.runs import RunsService
from dicode_mcp.service.secrets import SecretsService
from dicode_mcp.service.sessions import Sessions
from dicode_mcp.service.sharing import SharingService
from dicode_mcp.service.sources import SourcesService
from dicode_mcp.service.status import StatusService
from dicode_mcp.service.task_api import TaskApiService
from dicode_mcp.service.tasks import TasksService
from dicode_mcp.service.trail import AuditTrail
from dicode_mcp.service.updates import UpdateService


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases by noun; ``inside`` is what a running task may ask."""

    tasks: TasksService
    runs: RunsService
    replays: ReplayService
    questions: QuestionsService
    history: HistoryService
    task_api: TaskApiService
    permissions: PermissionsService
    sources: SourcesService
    status: StatusService
    dev_mode: DevModeService
    authoring: AuthoringService
    pushes: PushService
    hooks: HooksService
    registries: Registries
    approvals: ApprovalsService
    sharing: SharingService
    updates: UpdateService
    inside: Inside
    secrets: SecretsService
    invitations: Invitations
    rotation: KeyRotation
    keys: Keys
    trail: AuditTrail
    sessions: Sessions
