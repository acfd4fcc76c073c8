"""Where options come from: flags, environment, recipes; checked and read at once.

`Settings`, made of `setting_groups`, is the single source for the command-line flags, the
`QLORA_*` environment variables, the table of docs/settings.md and the settings in `run.json`.
"""

import difflib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from trainer.errors import SettingsError
from trainer.options import ENV_PREFIX, PLACE, Option, options_of, unquoted
from trainer.setting_groups import (
    AdapterSettings,
    BaseSettings,
    DataSettings,
    EvaluationSettings,
    LoggingSettings,
    PreparationSettings,
    RunSettings,
    ScheduleSettings,
    StorageSettings,
)
from trainer.uris import publishable_uri

# Defaults by purpose; what is set beside a recipe beats it. Figures: docs/measurements/0013.
RECIPES: dict[str, dict[str, str]] = {
    "none": {},
    "facts": {"target_modules": "gate_proj,up_proj,down_proj", "effective_batch_size": "4"},
    "style": {"epochs": "2"},
}
# With a store or hub out of reach, where somebody waits for an answer and nothing is trained.
PATIENCE_MINUTES = "0.05"
OTHER_TOOLS = ("AWS_", "HF_", "WANDB_", "MLFLOW_")  # whose variables a run reads too


@dataclass(frozen=True, kw_only=True)
class Settings(  # the last base's options come first
    LoggingSettings,
    RunSettings,
    StorageSettings,
    EvaluationSettings,
    ScheduleSettings,
    AdapterSettings,
    BaseSettings,
    PreparationSettings,
    DataSettings,
):
    """One run's options, checked. Build it with `Settings.read`."""

    given: frozenset[str] = frozenset()
    """names of the options that the user has set"""

    @classmethod
    def read(
        cls, flags: Mapping[str, str | None], environ: Mapping[str, str], *, trains: bool = True
    ) -> "Settings":
        """Flag beats environment beats default.

        `flags` maps field names to what was typed, None where a flag was not given. A command
        that does not train needs none of the required settings. Raises SettingsError that lists
        every fault of every source.
        """
        values, faults = _parsed(flags, environ, trains)
        if faults:
            raise SettingsError("; ".join(faults))
        if values["scratch_dir"] == Path():
            values["scratch_dir"] = Path(tempfile.gettempdir()) / "qlora"
        given = frozenset(one.name for one in options() if one.is_given(flags, environ))
        return cls(**values, given=given)

    def with_recipe(self, name: str) -> "Settings":
        """With the defaults of a recipe, as far as the user has set neither those nor a recipe, and
        they fit what is set."""
        if "recipe" in self.given:
            return self
        values = {one.name: getattr(self, one.name) for one in options()} | {"recipe": name}
        for one in options():
            raw = RECIPES[name].get(one.name)
            if raw is not None and one.name not in self.given:
                value = one.parse(raw)
                if not (one.check and list(one.check(one, value, values))):
                    values[one.name] = value
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without secrets or paths of this machine: what `run.json` records."""
        record = asdict(self)
        del record["scratch_dir"], record["given"]
        record["checkpoint_every"] = str(self.checkpoint_every)
        for o in options():
            if o.parser is PLACE:
                record[o.name] = publishable_uri(record[o.name])
        return record

    def changing_the_result(self) -> dict[str, Any]:
        """The settings that two runs must share to end in the same weights, JSON-ready."""
        record = self.to_dict()
        return {o.name: record[o.name] for o in options() if o.changes_result}

    def preparing(self) -> dict[str, Any]:
        """The settings that decide what is made of documents, JSON-ready; where a model is served
        does not."""
        record = self.to_dict()
        names = PreparationSettings.__annotations__
        return {name: record[name] for name in names if not name.endswith("_url")}


def options() -> list[Option]:
    """Every setting in the order it is documented."""
    return options_of(tuple(f for f in fields(Settings) if f.name != "given"))


def _parsed(
    flags: Mapping[str, str | None], environ: Mapping[str, str], trains: bool
) -> tuple[dict[str, Any], list[str]]:
    """The value of each option that could be read, and every fault of every source."""
    faults = [*unknown_variables(environ), *_spoilt_variables(environ)]
    values: dict[str, Any] = {}
    recipe = RECIPES.get(_recipe_named(flags, environ), {})
    for one in options():
        source, raw = one.given(flags, environ, recipe.get(one.name))
        try:
            values[one.name] = one.parse(raw)
        except ValueError:
            comma = ", without commas" if "," in raw else ""
            faults.append(f"{source}={raw!r} is not {one.parser.expected}{comma}")
            continue
        faults += (f"{source}={raw}: {fault}" for fault in one.faults(values[one.name]))
        if trains and not raw and one.required:
            faults.append(f"{one.env} is required: {one.meaning}")
    for one in options():
        if one.check and one.name in values:
            faults += one.check(one, values[one.name], values)
    return values, faults


def _recipe_named(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> str:
    (option,) = (one for one in options() if one.name == "recipe")
    return str(option.parse(option.given(flags, environ)[1]))


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One fault for each `QLORA_*` variable that is no setting, with the nearest real name, and for
    each that is one but for its small letters."""
    known = [option.env for option in options()]
    faults = []
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            faults.append(f"{name} is not a setting; did you mean {near}?")
        elif name.upper() in known and name not in known and not environ.get(name.upper()):
            faults.append(f"{name} is not read: write it as {name.upper()}")
    return faults


def _spoilt_variables(environ: Mapping[str, str]) -> list[str]:
    """Faults of other tools' variables that no tool forgives; their values are never shown."""
    return [
        f"{name} has quotes, a space or a line break around its value; take them away "
        "(`echo -n` makes no line break, env files need no quotes)"
        for name, value in sorted(environ.items())
        if name.startswith(OTHER_TOOLS) and unquoted(value) != value
    ]
