"""``dicode.yaml``: what a server is told when it starts, as frozen values.

Reads the file strictly, with the same problems as a manifest. Knows nothing of the things it
configures.
"""

from dicode_mcp.config.file import find_config, load_config, read_config
from dicode_mcp.config.model import (
    AiConfig,
    Config,
    DatabaseConfig,
    DefaultsConfig,
    ExecutionConfig,
    InlineSet,
    NotificationsConfig,
    RegistryConfig,
    RetentionConfig,
    RuntimeConfig,
    SecretProvider,
    SecretsConfig,
    ServerConfig,
    SourceAuth,
    SourceConfig,
    WorkersConfig,
)
from dicode_mcp.config.schema import config_schema

__all__ = [
    "AiConfig",
    "Config",
    "DatabaseConfig",
    "DefaultsConfig",
    "ExecutionConfig",
    "InlineSet",
    "NotificationsConfig",
    "RegistryConfig",
    "RetentionConfig",
    "RuntimeConfig",
    "SecretProvider",
    "SecretsConfig",
    "ServerConfig",
    "SourceAuth",
    "SourceConfig",
    "WorkersConfig",
    "config_schema",
    "find_config",
    "load_config",
    "read_config",
]
