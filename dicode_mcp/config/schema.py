"""The JSON Schema of ``dicode.yaml``."""

from __future__ import annotations

from typing import Any

from dicode_mcp.config.model import Config
from dicode_mcp.spec.schema import document_schema


def config_schema() -> dict[str, Any]:
    """Give the JSON Schema of ``dicode.yaml``."""
    schema = document_schema(Config, "dicode configuration")
    schema["required"] = []
    definitions = schema["$defs"]
    text: dict[str, Any] = {"type": "string"}
    for owner, key in ((definitions["SecretsConfig"], "providers"), (schema, "registries")):
        field = owner["properties"][key]
        field["items"] = {"anyOf": [text, field["items"]]}
    chain = definitions["DefaultsConfig"]["properties"]["on_failure_chain"]
    chain["anyOf"].insert(0, text)
    shipped = schema["properties"]["bundled"]
    switch: dict[str, Any] = {"type": "boolean"}
    schema["properties"]["bundled"] = {
        "description": shipped["description"],
        "anyOf": [switch, {"$ref": "#/$defs/BundledConfig"}],
    }
    for key, field in schema["properties"].items():
        field.pop("default", None)
        schema["properties"][key] = {
            "description": field.pop("description"),
            "anyOf": [field, {"type": "null"}],
        }
    return schema
