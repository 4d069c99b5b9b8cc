"""The use cases by noun: authorisation, audit, and the shapes every surface shows."""

from dicode_mcp.service.principal import Principal, local_principal
from dicode_mcp.service.services import Services

__all__ = ["Principal", "Services", "local_principal"]
