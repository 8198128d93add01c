"""The values a job option may hold: each kind of value converts, describes and documents itself.

`latentsync.pipelines.job.LipsyncJob` attaches one `JobOption` to each of its fields. Conversion and checks, JSON Schema
and command-line options are derived from it, so that nothing about an option is written twice.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

from latentsync.errors import ConfigError

_LONGEST_SHOWN = 120
_RATE = r"[0-9]{1,9}(\.[0-9]{1,20}|/[0-9]{1,9})?"
_INDEX = r"[0-9]{1,3}"
SLOWEST_RATE, FASTEST_RATE = 1, 240
REQUIRED = dataclasses.MISSING


class ValueKind(Protocol):
    """A kind of value."""

    @property
    def expected(self) -> str:
        """What is expected, in words that follow "expected"."""
        ...

    def convert(self, value: Any) -> Any:
        """The value in its final type. Raises ValueError, TypeError or OverflowError if it is not of this kind."""
        ...

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the values that `convert` accepts from JSON."""
        ...

    def argument(self) -> dict[str, Any]:
        """Keywords of ``argparse.ArgumentParser.add_argument``."""
        ...


@dataclass(frozen=True)
class PathValue:
    """A path of a file: text or a path object -> Path."""

    expected: str = "a path"

    def convert(self, value: Any) -> Path:
        """See `ValueKind.convert`."""
        text = os.fspath(value)
        if not isinstance(text, str) or not text or "\0" in text:
            raise ValueError("not a path")
        return Path(text)

    def schema(self) -> dict[str, Any]:
        """See `ValueKind.schema`."""
        return {"type": "string", "minLength": 1, "pattern": "^[^\\u0000]*$"}

    def argument(self) -> dict[str, Any]:
        """See `ValueKind.argument`."""
        return {"type": Path, "metavar": "FILE"}


@dataclass(frozen=True)
class IntegerValue:
    """A whole number from ``minimum`` to ``maximum``, both included -> int. Booleans and text are refused."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        """See `ValueKind.expected`."""
        return f"a whole number from {self.minimum} to {self.maximum}"

    def convert(self, value: Any) -> int:
        """See `ValueKind.convert`."""
        number = _real(value)
        if not self.minimum <= number <= self.maximum or number != int(number):
            raise ValueError("not in range")
        return int(number)

    def schema(self) -> dict[str, Any]:
        """See `ValueKind.schema`."""
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}

    def argument(self) -> dict[str, Any]:
        """See `ValueKind.argument`."""
        return {"type": int, "metavar": "N"}


@dataclass(frozen=True)
class NumberValue:
    """A number up to ``maximum`` -> float. Booleans and text are refused.

    Attributes:
        minimum: the smallest value.
        maximum: the largest value, included.
        above: whether ``minimum`` itself is excluded.
        unit: appended to the number in words, for example "seconds".
    """

    minimum: float
    maximum: float
    above: bool = False
    unit: str = ""

    @property
    def expected(self) -> str:
        """See `ValueKind.expected`."""
        low = f"above {self.minimum:g} and up to" if self.above else f"from {self.minimum:g} to"
        return f"a number {low} {self.maximum:g} {self.unit}".rstrip()

    def convert(self, value: Any) -> float:
        """See `ValueKind.convert`."""
        number = _real(value)
        if not self.minimum <= number <= self.maximum or (self.above and number == self.minimum):
            raise ValueError("not in range")
        return float(number)

    def schema(self) -> dict[str, Any]:
        """See `ValueKind.schema`."""
        low = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "number", low: self.minimum, "maximum": self.maximum}

    def argument(self) -> dict[str, Any]:
        """See `ValueKind.argument`."""
        return {"type": float, "metavar": self.unit.upper() or "X"}


@dataclass(frozen=True)
class ChoiceValue:
    """One of several words -> str.

    Attributes:
        choices: read at every use, so that a live view, such as a dictionary's keys, may grow.
    """

    choices: Collection[str]

    @property
    def expected(self) -> str:
        """See `ValueKind.expected`."""
        return f"one of {', '.join(self.choices)}"

    def convert(self, value: Any) -> str:
        """See `ValueKind.convert`."""
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError("not a choice")
        return value

    def schema(self) -> dict[str, Any]:
        """See `ValueKind.schema`."""
        return {"enum": list(self.choices)}

    def argument(self) -> dict[str, Any]:
        """See `ValueKind.argument`."""
        return {"choices": list(self.choices)}


@dataclass(frozen=True)
class FlagValue:
    """True or false -> bool; words and numbers are refused."""

    expected: str = "true or false"

    def convert(self, value: Any) -> bool:
        """See `ValueKind.convert`."""
        if not isinstance(value, bool):
            raise TypeError("not a boolean")
        return value

    def schema(self) -> dict[str, Any]:
        """See `ValueKind.schema`."""
        return {"type": "boolean"}

    def argument(self) -> dict[str, Any]:
        """See `ValueKind.argument`. Not given is None, so that a default from elsewhere can apply."""
        return {"action": "store_true", "default": None}


@dataclass(frozen=True)
class IntervalValue:
    """Two rising fractions between 0 and 1 -> (low, high)."""

    expected: str = "two numbers, rising from 0 to 1"

    def convert(self, value: Any) -> tuple[float, float]:
        """See `ValueKind.convert`."""
        if not isinstance(value, list | tuple):
            raise TypeError("not a list")
        low, high = map(_real, value)
        if not 0 <= low <= high <= 1:
            raise ValueError("not rising from 0 to 1")
        return float(low), float(high)

    def schema(self) -> dict[str, Any]:
        """See `ValueKind.schema`. A schema cannot require that the numbers rise."""
        fraction = {"type": "number", "minimum": 0, "maximum": 1}
        return {"type": "array", "items": fraction, "minItems": 2, "maxItems": 2}

    def argument(self) -> dict[str, Any]:
        """See `ValueKind.argument`."""
        return {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}


@dataclass(frozen=True)
class FaceValue:
    """Which face: a word, or a position counted from the left from 0, as a number or text -> str."""

    words: Sequence[str]

    @property
    def expected(self) -> str:
        """See `ValueKind.expected`."""
        return f"one of {', '.join(self.words)}, or a position counted from the left from 0 to 999"

    def convert(self, value: Any) -> str:
        """See `ValueKind.convert`."""
        if isinstance(value, str):
            if value not in self.words and not re.fullmatch(_INDEX, value):
                raise ValueError("not a face")
            return value
        return str(IntegerValue(0, 999).convert(value))

    def schema(self) -> dict[str, Any]:
        """See `ValueKind.schema`."""
        position = {"type": "string", "pattern": f"^{_INDEX}$"}
        return {"anyOf": [{"enum": list(self.words)}, IntegerValue(0, 999).schema(), position]}

    def argument(self) -> dict[str, Any]:
        """See `ValueKind.argument`."""
        return {"metavar": "WHICH"}


@dataclass(frozen=True)
class RateValue:
    """A frame rate: "source", a number, or its text such as "25" or "30000/1001" -> str."""

    expected: str = f"source, or a number from {SLOWEST_RATE} to {FASTEST_RATE} such as 25 or 30000/1001"

    def convert(self, value: Any) -> str:
        """See `ValueKind.convert`."""
        if value == "source":
            return "source"
        if isinstance(value, str):
            if not re.fullmatch(_RATE, value) or not SLOWEST_RATE <= Fraction(value) <= FASTEST_RATE:
                raise ValueError("not a rate")
            return value
        number = _real(value)
        if not SLOWEST_RATE <= number <= FASTEST_RATE:
            raise ValueError("not in range")
        return str(number)

    def schema(self) -> dict[str, Any]:
        """See `ValueKind.schema`. A schema cannot check the range of a number written as text."""
        text = {"type": "string", "pattern": f"^{_RATE}$"}
        number = NumberValue(SLOWEST_RATE, FASTEST_RATE).schema()
        return {"anyOf": [{"const": "source"}, number, text]}

    def argument(self) -> dict[str, Any]:
        """See `ValueKind.argument`."""
        return {"metavar": "FPS"}


@dataclass(frozen=True)
class JobOption:
    """What one field of a job accepts.

    Attributes:
        kind: of its values.
        help: what it does, in a few words: the description in the JSON Schema and the help of the command line.
    """

    kind: ValueKind
    help: str

    def checked(self, key: str, value: Any) -> Any:
        """The value in its final type.

        Raises:
            ConfigError: it is not of the option's kind.
        """
        try:
            return self.kind.convert(value)
        except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
            shown = repr(value)
            shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
            raise ConfigError(f"{key}: got {shown}, expected {self.kind.expected}") from error

    def schema(self, default: Any) -> dict[str, Any]:
        """JSON Schema of the option; unless it is required it may be null, which means its default."""
        schema = {"description": self.help, **self.kind.schema()}
        if default is REQUIRED:
            return schema
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
        elif "anyOf" in schema:
            schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
        else:
            schema["type"] = [schema["type"], "null"]
        return schema if default is None else {**schema, "default": default}

    def argument(self, default: Any) -> dict[str, Any]:
        """Keywords of ``argparse.ArgumentParser.add_argument``; the parser itself leaves what is not given at None."""
        shown = default not in (None, False, REQUIRED)
        return {"help": f"{self.help} (default: {default})" if shown else self.help, **self.kind.argument()}


def job_option(kind: ValueKind, text: str) -> dict[str, JobOption]:
    """Metadata of a dataclass field; see `JobOption` for the arguments."""
    return {"option": JobOption(kind, text)}


def option_of(field: dataclasses.Field[Any]) -> JobOption:
    """The option that `job_option` attached to a field."""
    option: JobOption = field.metadata["option"]
    return option


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field, or `REQUIRED`."""
    return field.default


def given_values(options: Mapping[str, JobOption], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None, each converted and checked by its option.

    Raises:
        ConfigError: not a mapping, a key that is not an option, or a value of another kind.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"Job: got {type(values).__name__}, expected a mapping with {', '.join(options)}")
    unknown = [str(key) for key in values if key not in options]
    if unknown:
        raise ConfigError(f"Job: unknown {', '.join(unknown)}; known: {', '.join(options)}")
    return {key: options[key].checked(key, value) for key, value in values.items() if value is not None}


def plain_value(value: Any) -> Any:
    """A field's value as JSON can hold it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _real(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError("not a number")
    return value
