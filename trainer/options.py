"""What an option is: how it is typed, read, limited and documented. `Settings` is made of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.uris import in_lower_case, uri_faults

ENV_PREFIX = "QLORA_"
_KEY = "option"  # under which a field's metadata hold it


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Time or optimizer steps between two events; exactly one of the two is set."""

    minutes: float | None = None
    steps: int | None = None

    def __str__(self) -> str:
        return f"{self.minutes:g}m" if self.minutes is not None else f"{self.steps}"


@dataclass(frozen=True)
class Parser:
    """From what was typed to a value; `expected` is for the message when that fails."""

    parse: Callable[[str], Any]
    """Raises ValueError"""
    expected: str = "text"


def _interval(raw: str) -> Interval:
    text = raw.strip().lower()
    if text.endswith("m"):
        return Interval(minutes=float(text[:-1]))
    return Interval(steps=int(text))


def _place(raw: str) -> str:
    """A folder or URI; `~` is left to no shell."""
    text = in_lower_case(raw.strip())
    return str(Path(text).expanduser()) if text.startswith("~") else text


def _names(raw: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(raw.replace(",", " ").split()))


TEXT = Parser(str.strip)
WHOLE = Parser(int, "a whole number")
NUMBER = Parser(float, "a number")
WHOLE_OR_UNSET = Parser(lambda raw: int(raw) if raw.strip() else None, "a whole number")
WHOLE_OR_AUTO = Parser(  # `auto` is None: the device decides
    lambda raw: None if raw.strip().lower() in ("", "auto") else int(raw), "a whole number or auto"
)
NUMBER_OR_UNSET = Parser(lambda raw: float(raw) if raw.strip() else None, "a number")
NUMBER_OR_AUTO = Parser(  # `auto` is None: the data decides
    lambda raw: None if raw.strip().lower() in ("", "auto") else float(raw), "a number or auto"
)
NAMES = Parser(_names)
PLACE = Parser(_place)
FOLDER = Parser(lambda raw: Path(raw.strip()).expanduser())
INTERVAL = Parser(_interval, "minutes (10m) or optimizer steps (200)")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One setting: where it comes from, what it may be, what it means."""

    default: str
    """As a user would type it"""
    meaning: str
    parser: Parser = TEXT
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    check: "Check | None" = None
    """Faults of the value that its limits cannot say: of its form, or beside other values"""
    shown: str = ""
    """Replaces the default in the docs"""
    required: bool = False
    changes_result: bool = True
    """Whether two runs that differ in it may end in other weights"""
    name: str = ""
    """Of its field in `Settings`; filled in by `options_of`"""

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def shown_default(self) -> str:
        return "required" if self.required else self.shown or self.default or "unset"

    def given(
        self,
        flags: Mapping[str, str | None],
        environ: Mapping[str, str],
        default: str | None = None,
    ) -> tuple[str, str]:
        """Where the value comes from and what was typed; an empty variable counts as unset, and the
        empty flag of a choice is the default.

        `default` takes the place of the option's own.
        """
        usual, flag = self.default if default is None else default, flags.get(self.name)
        if flag is not None:
            return self.flag, usual if self.choices and not flag.strip() else flag
        return self.env, unquoted(environ.get(self.env, "")) or usual

    def is_given(self, flags: Mapping[str, str | None], environ: Mapping[str, str]) -> bool:
        """Whether the user has set it, be it to its default."""
        return flags.get(self.name) is not None or bool(unquoted(environ.get(self.env, "")))

    def parse(self, raw: str) -> Any:
        """The value of `raw`, a choice in its own spelling. Raises ValueError."""
        value = self.parser.parse(raw)
        return self._spellings().get(value.lower(), value) if self.choices else value

    def _spellings(self) -> dict[str, str]:
        """Every way in which a choice may be written, in small letters."""
        spellings = {choice.lower(): choice for choice in self.choices}
        if "yes" in spellings:
            spellings |= dict.fromkeys(("true", "on", "1"), "yes")
            spellings |= dict.fromkeys(("false", "off", "0"), "no")
        return spellings

    def faults(self, value: Any) -> Iterator[str]:
        """What `value` lacks by its limits."""
        if self.choices and value not in self.choices:
            yield f"needs one of {', '.join(self.choices)}"
        if value is None or not isinstance(value, int | float):
            return
        if value != value or abs(value) == float("inf"):
            yield "needs a finite number"
        if self.least is not None and value < self.least:
            yield f"needs at least {self.least:g}"
        if self.above is not None and value <= self.above:
            yield f"needs more than {self.above:g}"
        if self.most is not None and value > self.most:
            yield f"needs at most {self.most:g}"


# A check takes the option, its value, and those of all options that could be parsed.
Check = Callable[[Option, Any, Mapping[str, Any]], Iterator[str]]


def option(default: str, meaning: str, parser: Parser = TEXT, **more: Any) -> Any:
    """A field of a dataclass that is an `Option`."""
    return field(metadata={_KEY: Option(default=default, meaning=meaning, parser=parser, **more)})


def neutral(default: str, meaning: str, parser: Parser = TEXT, **more: Any) -> Any:
    """An option in which two runs may differ and still end in the same weights."""
    return option(default, meaning, parser, changes_result=False, **more)


def place(meaning: str, **more: Any) -> Any:
    """A neutral option that names a folder or a store."""
    return neutral("", meaning, PLACE, check=_well_formed, **more)


def options_of(fields: tuple[Field[Any], ...]) -> list[Option]:
    """The option of each field, with its name."""
    return [replace(field.metadata[_KEY], name=field.name) for field in fields]


def _well_formed(option: Option, value: Any, _others: Mapping[str, Any]) -> Iterator[str]:
    yield from uri_faults(option.env, value)


def unquoted(raw: str) -> str:
    """Without the quotes that `docker --env-file` and Kubernetes leave around a value."""
    text = raw.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] in "\"'" else text
