"""JSON Schemas (2020-12) of the files users write, for editors and for agents.

Made from the models, so that a new field is in them; the forms a file may use beside the models'
own are added here.
"""

from __future__ import annotations

from typing import Any, cast

from dicode_mcp.spec.base import Model
from dicode_mcp.spec.descriptions import DESCRIPTIONS
from dicode_mcp.spec.model import RUNTIME_ALIASES, RUNTIMES, TaskSpec
from dicode_mcp.spec.trigger import KINDS, OPTIONS

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SCALAR: Schema = {"type": ["string", "number", "boolean"]}
_TEXT: Schema = {"type": "string"}


def task_schema() -> Schema:
    """Give the schema of ``task.yaml``."""
    schema = document_schema(TaskSpec, "dicode task")
    definitions, fields = schema["$defs"], schema["properties"]
    fields["version"] = {**_SCALAR, **_description("TaskSpec", "version")}
    known = [*RUNTIMES, *RUNTIME_ALIASES]
    # a plugin may add a name, so the known ones are offered and not required
    fields["runtime"] = {
        "anyOf": [{"enum": known}, {"type": "string", "pattern": "^[a-z][a-z0-9_-]*$"}],
        **_description("TaskSpec", "runtime"),
    }
    fields["params"] = _params(fields["params"], definitions)
    fields["container"] = {**fields["docker"], **_description("TaskSpec", "container")}
    fields["on_failure_chain"] = _or_text(fields["on_failure_chain"])
    _trigger(definitions["TriggerSpec"])
    definitions["RateLimit"]["properties"]["per"]["anyOf"].append({"enum": ["s", "m", "h", "d"]})
    _chain(definitions["ChainTrigger"])
    definitions["EnvEntry"] = _env_entry(definitions["EnvEntry"])
    _container(definitions["ContainerSpec"])
    schema["allOf"] = [
        {
            "if": {"properties": {"runtime": {"enum": ["docker", "podman"]}}},
            "then": {"anyOf": [{"required": ["docker"]}, {"required": ["container"]}]},
        }
    ]
    _let_null(schema)
    return schema


def document_schema(model: type[Model], title: str) -> Schema:
    """Give the schema of a model's file form, with descriptions and without noise."""
    made: Schema = model.model_json_schema(by_alias=True, mode="validation")
    schema: Schema = {"$schema": DIALECT, **made, "title": title}
    _describe(model.__name__, schema)
    definitions: dict[str, Schema] = schema.get("$defs", {})
    for name, definition in definitions.items():
        _describe(name, definition)
    return schema


def _describe(name: str, definition: Schema) -> None:
    if "description" in definition:
        definition["description"] = str(definition["description"]).split("\n\n")[0]
    for key, field in definition.get("properties", {}).items():
        field.pop("title", None)
        field.update(_description(name, key))
    if name in DESCRIPTIONS and definition.get("title") == name:
        del definition["title"]


def _description(model: str, key: str) -> Schema:
    sentence = DESCRIPTIONS.get(model, {}).get(key)
    return {"description": sentence} if sentence else {}


def _let_null(schema: Schema) -> None:
    """An empty key of the root counts as absent, but for the required ones."""
    for key, field in schema["properties"].items():
        if key in schema["required"] or {"type": "null"} in field.get("anyOf", []):
            continue
        described = {k: field.pop(k) for k in ("description", "default") if k in field}
        schema["properties"][key] = {"anyOf": [dict(field), {"type": "null"}], **described}


def _or_text(field: Schema) -> Schema:
    return {**field, "anyOf": [_TEXT, *field["anyOf"]]}


def _params(field: Schema, definitions: dict[str, Schema]) -> Schema:
    named = definitions["ParamSpec"]
    inner = {key: value for key, value in named["properties"].items() if key != "name"}
    inner["default"] = {**inner["default"], "type": ["string", "number", "boolean", "null"]}
    named["properties"] = {"name": named["properties"]["name"], **inner}
    fields: Schema = {"type": "object", "properties": inner, "additionalProperties": False}
    value = {"anyOf": [{"type": ["string", "number", "boolean", "null"]}, fields]}
    single = {"type": "object", "minProperties": 1, "maxProperties": 1}
    return {
        "anyOf": [
            {"type": "object", "additionalProperties": value},
            {
                "type": "array",
                "items": {
                    "anyOf": [
                        {"$ref": "#/$defs/ParamSpec"},
                        {
                            **single,
                            "not": {"required": ["name"]},
                            "additionalProperties": value,
                        },
                    ]
                },
            },
        ],
        **{key: value for key, value in field.items() if key == "description"},
    }


def _trigger(definition: Schema) -> None:
    fields: dict[str, Schema] = definition["properties"]
    for kind in KINDS:
        fields[kind].pop("default", None)
    rate = {"type": "string", "pattern": "^[0-9]{1,9}/[0-9a-zµμ.]+$"}
    fields["rate_limit"]["anyOf"].insert(0, rate)
    definition["oneOf"] = [{"required": [kind], **_declared(kind)} for kind in KINDS]
    definition["dependentSchemas"] = {
        option: {"required": [kind]} for option, kind in OPTIONS.items()
    }


def _declared(kind: str) -> Schema:
    """A trigger that is null or false is not declared."""
    return {"properties": {kind: {"not": {"enum": [None, False]}}}}


def _chain(definition: Schema) -> None:
    field = definition["properties"]["from"]
    description = field.pop("description")
    definition["properties"]["from"] = {
        "anyOf": [field["items"], field],
        "description": description,
    }


def _env_entry(definition: Schema) -> Schema:
    own = definition["properties"]
    fields: Schema = {
        "name": {
            "type": "string",
            "pattern": "^(?!DICODE_)[A-Za-z_][A-Za-z0-9_]*$",
        },
        "value": dict(_SCALAR),
        "from": dict(_TEXT),
        "secret": dict(_TEXT),
        "optional": own["optional"],
        "if_missing": own["if_missing"],
    }
    for key, field in fields.items():
        field |= _description("EnvEntry", key)
    origins = [["value", "from"], ["value", "secret"], ["from", "secret"]]
    return {
        "description": "One environment variable of the task.",
        "anyOf": [
            {"type": "string", "pattern": "^(?!DICODE_)[A-Za-z_][A-Za-z0-9_]*(=[\\s\\S]*)?$"},
            {
                "type": "object",
                "properties": fields,
                "required": ["name"],
                "additionalProperties": False,
                "not": {"anyOf": [{"required": pair} for pair in origins]},
            },
        ],
    }


def _container(definition: Schema) -> None:
    fields = definition["properties"]
    for key in ("user", "gpus"):
        cast(list[Schema], fields[key]["anyOf"]).insert(0, {"type": "integer"})
    fields["env_vars"]["additionalProperties"] = dict(_SCALAR)
