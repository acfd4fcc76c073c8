"""A flag for each setting, and their help: the few that people set first, and all in groups."""

import platform
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from trainer import __version__
from trainer.options import PLACE, Option
from trainer.runs.library_versions import installed
from trainer.runtime.env_file import load_env_file
from trainer.settings import Settings, options

_SHOWN_NAMES = 5  # of variables in a file

FIRST = ("data_uri", "output_uri", "base_model", "eval_uri", "recipe")
SHOWN_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes")
# `Settings` names its groups last first, as dataclasses order their fields.
GROUPS = [group for group in reversed(Settings.__bases__) if group.__module__.endswith("groups")]


class SettingFlag(click.Option):
    """The flag of a setting, unparsed: Settings reports all faults at once."""

    def __init__(self, option: Option) -> None:
        self.setting = option
        meaning = option.meaning.replace("`", "")
        super().__init__(
            [option.flag, option.name],
            metavar="VALUE",
            help=f"{meaning}  [default: {option.shown_default.replace('`', '')}]",
        )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The choices of one that has some; the shell's own files for a place."""
        if self.setting.parser is PLACE:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(c) for c in self.setting.choices if c.startswith(incomplete)]


class EnvFileOption(click.Option):
    """`--env-file`, which every command has; its variables are set before others are read."""

    def __init__(self) -> None:
        super().__init__(
            ["--env-file"],
            metavar="FILE",
            is_eager=True,
            expose_value=False,
            callback=_load_env_file,
            help="Read variables from FILE, as docker does; those that are set beat it.",
        )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]

    @staticmethod
    def behind_command(args: list[str], commands: Container[str]) -> list[str]:
        """`args` with a command first, also where `--env-file FILE` was written before it."""
        if args[:1] == ["--env-file"] and len(args) > 2 and args[2] in commands:
            return [args[2], *args[:2], *args[3:]]
        return args


def _load_env_file(ctx: click.Context, _option: click.Parameter, file: str | None) -> None:
    if file is None or ctx.resilient_parsing:
        return
    if left_out := load_env_file(Path(file)):
        names = ", ".join(left_out[:_SHOWN_NAMES]) + ", …" * (len(left_out) > _SHOWN_NAMES)
        click.echo(f"{file}: {names} left out: no setting; set it in the shell", err=True)


class CommandWithSettings(click.Command):
    """A command that takes settings; its `--help` shows `FIRST`, `--help-all` every group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        flags = {one.name: one for one in self.get_params(ctx) if isinstance(one, SettingFlag)}
        own = [one for one in self.get_params(ctx) if not isinstance(one, SettingFlag)]
        _write(formatter, "Set first", [flags[name] for name in FIRST], ctx)
        if ctx.meta.get("help_all"):
            for group in GROUPS:
                names = [name for name in group.__annotations__ if name not in FIRST]
                _write(formatter, _title(group), [flags[name] for name in names], ctx)
        _write(formatter, "Options", own, ctx)


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` one flag for each setting, and `--help-all`."""
    show_all = click.Option(
        ["--help-all"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_all,
        help="Show every setting, in groups, and exit.",
    )
    for flag in reversed([*map(SettingFlag, options()), show_all]):
        # What click's own decorators leave for `click.command`.
        command.__dict__.setdefault("__click_params__", []).append(flag)
    return command


def versions() -> str:
    """This program's, and those that decide most of what it can do."""
    libraries = ", ".join(f"{name} {installed(name)}" for name in SHOWN_VERSIONS)
    return f"{__version__} (Python {platform.python_version()}, {libraries})"


def _show_all(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.meta["help_all"] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _title(group: type) -> str:
    """`DataSettings` -> "Data: what is trained on, and how it is read"."""
    said = (group.__doc__ or "").rstrip(".")
    return f"{group.__name__.removesuffix('Settings')}: {said[:1].lower()}{said[1:]}"


def _write(
    formatter: click.HelpFormatter,
    title: str,
    flags: Sequence[click.Parameter],
    ctx: click.Context,
) -> None:
    rows = [row for flag in flags if (row := flag.get_help_record(ctx)) is not None]
    with formatter.section(title):
        formatter.write_dl(rows)
