"""The base of every model that a YAML file becomes: frozen, strict, with all findings at once.

A model adds rules that look at the raw map, so that a rule over two keys is told together with
the errors inside each key. Knows nothing of files or positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, LiteralString, NoReturn, Self, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from dicode_mcp.spec.problems import KeyPath, choices

Raw = Mapping[str, Any]

FROM_FILE = "from_file"
"""In the validation context: what is read is a file's own form."""


def rule_error(message: str, hint: str = "") -> PydanticCustomError:
    """Make a finding in our own words."""
    return PydanticCustomError("rule", "{message}", {"message": message, "hint": hint})


def fail(message: str, hint: str = "") -> NoReturn:
    """Raise a finding from inside a validator."""
    raise rule_error(message, hint)


def checked(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a validator of a function that raises ``ValueError`` sentences."""

    def validate(value: Any) -> Any:
        try:
            return check(value)
        except ValueError as error:
            fail(str(error))

    return validate


_PYDANTIC_TYPES = frozenset[str](get_args(core_schema.ErrorType))
"""What pydantic lets be raised again by name; it also has types of its Python side."""


class Findings:
    """Errors being collected below one place of a document."""

    def __init__(self) -> None:
        self._errors: list[InitErrorDetails] = []

    def add(self, path: KeyPath, message: str, hint: str = "", found: Any = None) -> None:
        """Note a finding at ``path``, relative to the value being checked."""
        error = rule_error(message, hint)
        self._errors.append(InitErrorDetails(type=error, loc=path, input=found))

    def absorb(
        self,
        path: KeyPath,
        error: ValidationError,
        known: Mapping[str, Any],
        written: Callable[[KeyPath], KeyPath] = lambda loc: loc,
    ) -> None:
        """Take over pydantic's errors; ``known`` are the keys the value may have."""
        for detail in error.errors(include_url=False):
            loc, context, found = detail["loc"], detail.get("ctx", {}), detail["input"]
            kind: str | PydanticCustomError = detail["type"]
            if kind == "rule":
                kind = rule_error(context["message"], context["hint"])
            elif kind == "extra_forbidden" and len(loc) == 1 and known:
                kind, found = rule_error("unknown key", choices(loc[0], known)), None
            elif kind not in _PYDANTIC_TYPES:
                name = cast(LiteralString, kind)
                kind = PydanticCustomError(name, "{text}", {**context, "text": detail["msg"]})
            self._errors.append(
                InitErrorDetails(type=kind, loc=(*path, *written(loc)), input=found, ctx=context)
            )

    def attempt(self, path: KeyPath, check: Callable[[], Any]) -> Any:
        """Give what ``check`` gives, or note why it failed and give None."""
        try:
            return check()
        except ValidationError as error:
            self.absorb(path, error, {})
        except PydanticCustomError as error:
            details = InitErrorDetails(type=error, loc=path, input=None)
            self._errors.append(details)
        return None

    def raise_any(self, title: str) -> None:
        """Raise what was collected, if anything."""
        if self._errors:
            raise ValidationError.from_exception_data(title, self._errors, hide_input=True)


class Model(BaseModel):
    """Frozen and strict: unknown keys are errors, told with the nearest known one.

    From code, fields go by their names; a file is read with ``read``, where only aliases count.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )

    also_known: ClassVar[tuple[str, ...]] = ()
    """Keys a file may use that are not fields."""

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Check what needs more than one key. ``raw`` may hold anything."""

    @classmethod
    def prepare(cls, raw: Raw) -> Raw:
        """Bring the forms a file may use to the fields' own."""
        return raw

    @classmethod
    def as_written(cls, raw: Raw, loc: KeyPath) -> KeyPath:
        """Undo ``prepare`` for the place of an error."""
        return loc

    @classmethod
    def keys(cls) -> dict[str, None]:
        """Give the keys a file may use, in order."""
        own = {field.alias or name: None for name, field in cls.model_fields.items()}
        return own | dict.fromkeys(cls.also_known)

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        raw = cast(Raw, data)
        findings = Findings()
        cls.rules(raw, findings)
        try:
            value = handler(cls.prepare(raw))
        except ValidationError as error:
            findings.absorb((), error, cls.keys(), lambda loc: cls.as_written(raw, loc))
            value = None
        findings.raise_any(cls.__name__)
        assert value is not None
        return value

    @classmethod
    def read(cls, data: Any, *, context: Mapping[str, Any] | None = None) -> Self:
        """Read the file form. Raises ``pydantic.ValidationError`` with every finding."""
        from_file = {FROM_FILE: True, **(context or {})}
        return cls.model_validate(data, by_alias=True, by_name=False, context=from_file)
