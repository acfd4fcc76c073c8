"""`init`: a few questions on a terminal, a look at the data, and a file of settings that every way
to start a run reads."""

import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from trainer.commands.chat import is_terminal
from trainer.commands.inspect import Inspection, inspect_data
from trainer.commands.plan import training_time
from trainer.errors import DataError, JobError, SettingsError
from trainer.preflight import refuse_output_among_data
from trainer.runtime import log
from trainer.runtime.device import GIB, Device, find_device
from trainer.runtime.env_file import write_env_file
from trainer.runtime.last_words import shown
from trainer.runtime.wording import hanging, this_command
from trainer.settings import PATIENCE_MINUTES, Settings
from trainer.uris import is_bucket_uri

RECIPES = {
    "facts": "your answers, word for word where it can: for a FAQ or a product's data",
    "style": "how you write, in few passes: for prose and long answers",
    "none": "neither: the settings of the textbook, to compare with",
}
HARDENED = "--read-only --cap-drop ALL --security-opt no-new-privileges"  # as in compose


@dataclass(frozen=True)
class Suggested:
    """A base model that is tried here, and the GPU memory with which it trains at ease."""

    name: str
    gib: float
    meaning: str


BASES = (
    Suggested("builtin:tiny", 0, "tries things out in minutes; knows no language but your answers"),
    Suggested("HuggingFaceTB/SmolLM2-135M-Instruct", 0, "the least that speaks; a CPU is enough"),
    Suggested("Qwen/Qwen2.5-1.5B-Instruct", 5, "speaks many languages"),
    Suggested("NousResearch/Llama-2-7b-hf", 11, "the default: 7B, what a T4 is enough for"),
    Suggested("Qwen/Qwen2.5-7B-Instruct", 15, "7B, follows instructions in many languages"),
)


def ask_for_settings(file: Path) -> Path | None:
    """Ask, look, write `file` or another; which one, to start the run now. Raises JobError."""
    if not is_terminal():
        raise SettingsError(
            "init asks on a terminal, and this is none: set QLORA_DATA_URI and QLORA_OUTPUT_URI"
        )
    click.secho("\nWhat shall it learn?", bold=True)
    chosen = {"data_uri": _ask_data()}
    device = find_device()
    chosen["base_model"] = _ask_base(device)
    found = _look(chosen)
    chosen["recipe"] = _ask_recipe(found)
    if found is not None:
        takes = f"{training_time(_settings_of(chosen))}."
        click.secho(hanging(takes, log.columns(sys.stdout), "Training takes "), bold=True)
    chosen["output_uri"] = _ask_output(chosen)
    file = _ask_file(file)
    ways = list(_ways(chosen, file, device))
    values = {f"QLORA_{name.upper()}": value for name, value in chosen.items()}
    write_env_file(file, values, ["Settings of a fine-tuning, read by:", *ways])
    click.secho(f"\n{file} is written. It is read by", bold=True)
    click.echo("".join(f"  {way}\n" for way in ways))
    try:
        return file if click.confirm("Start now?", default=True) else None
    except click.Abort:  # which is no, as the settings are written
        click.echo()
        return None


def _ask_base(device: Device) -> str:
    memory = device.free_bytes / GIB if device.kind == "cuda" else 0
    fitting = [base for base in BASES if base.gib <= memory]
    click.secho(f"\nWhich base model? Here is {_named(device)}.", bold=True)
    for number, base in enumerate(fitting, 1):
        click.echo(f"  {number}  {base.name}: {base.meaning}")
    usual = len(fitting) if memory else 1
    names = {str(number): base.name for number, base in enumerate(fitting, 1)}

    def base_of(typed: str) -> str:
        name = _checked("base_model", names.get(typed.strip(), typed))
        if not Path(name).is_dir():
            return name
        if not (Path(name) / "config.json").is_file():
            raise click.UsageError(f"{name}: no config.json there; name the model's own folder")
        return _whole(name)

    return _prompt("Number, or another name of huggingface.co, or a folder", str(usual), base_of)


def _named(device: Device) -> str:
    if device.kind == "cuda":
        return f"{device.name} with {device.free_bytes / GIB:.1f} GiB free"
    return "no GPU, so it has to be small"


def _ask_data() -> str:
    return _prompt("Folder, file or s3:// prefix", None, _existing)


def _look(chosen: dict[str, str]) -> Inspection | None:
    """Show what the data becomes, other data where it cannot be used; None where the base model
    could not be had for a look."""
    while True:
        try:
            found = inspect_data(_settings_of(chosen), examples=1)
        except DataError as error:
            click.echo(f"error: {shown(error)}", err=True)
            chosen["data_uri"] = _ask_data()
            continue
        except JobError as error:  # of the base, which a bucket or a hub has
            click.echo(f"not looked at: {shown(error)}", err=True)
            return None
        width = log.columns(sys.stdout)
        is_coloured = log.wants_colour()
        click.echo(f"\n{found.as_text(width, is_coloured=is_coloured, first_look=True)}")
        return found


def _settings_of(chosen: dict[str, str]) -> Settings:
    asked = {"storage_retry_minutes": PATIENCE_MINUTES} | chosen
    return Settings.read(asked, {}, trains=False)


def _ask_recipe(found: Inspection | None) -> str:
    has_questions = found is None or found.data.records or found.asks_first
    usual = "facts" if has_questions else "style"
    click.secho("\nWhat matters most?", bold=True)
    for number, (name, meaning) in enumerate(RECIPES.items(), 1):
        click.echo(f"  {number}  {name}: {meaning}")
    names = {str(number): name for number, name in enumerate(RECIPES, 1)}

    def recipe_of(typed: str) -> str:
        return _checked("recipe", names.get(typed.strip(), typed))

    return _prompt("Number", str(list(RECIPES).index(usual) + 1), recipe_of)


def _ask_output(chosen: dict[str, str]) -> str:
    click.secho("\nWhere shall the result be?", bold=True)

    def place_of(typed: str) -> str:
        place = _whole(_checked("output_uri", typed))
        try:
            refuse_output_among_data(Settings.read(chosen | {"output_uri": place}, {}))
        except SettingsError as error:
            raise click.UsageError(str(error)) from None
        return place

    return _prompt("Folder or s3:// prefix", "results", place_of)


def _ask_file(file: Path) -> Path:
    if not file.exists():
        return file
    if click.confirm(f"\n{file} is there. Write over it?", default=False):
        return file
    return _ask_file(Path(_prompt("Another name", None, str.strip)))


def _ways(chosen: dict[str, str], file: Path, device: Device) -> Iterator[str]:
    """How a run is started with `file`, a line each."""
    name, places = shlex.quote(str(file)), [chosen["data_uri"], chosen["output_uri"]]
    if Path(chosen["base_model"]).is_absolute():
        places.append(chosen["base_model"])
    yield f"{this_command()} --env-file {name}"
    mounts = [f"-v {shlex.quote(f'{p}:{p}')}" for p in places if not is_bucket_uri(p)]
    where = " ".join([*mounts, "-v hub:/tmp/hf -v scratch:/tmp/qlora --tmpfs /tmp:exec"])
    gpus, image = ("--gpus all ", "qlora-job") if device.kind == "cuda" else ("", "qlora-job:cpu")
    build = "" if gpus else " --build-arg VARIANT=cpu --build-arg BASE_IMAGE=ubuntu:24.04"
    yield f"or by a container, once `docker build -t {image}{build} .` has made its image:"
    yield f"docker run --rm {gpus}{HARDENED} --env-file {name} {where} {image}"
    if not mounts:
        compose = "docker compose -f docker/compose.yaml up train-own"
        yield f"ENV_FILE={shlex.quote(str(file.resolve()))} {compose}"
        yield f"k8s/submit NAME --env-file {name}"


def _prompt(text: str, default: str | None, value_of: Callable[[str], str]) -> str:
    """Asked until `value_of` takes the answer; click says what its UsageError says."""
    return str(click.prompt(text, default=default, value_proc=value_of))


def _checked(name: str, typed: str) -> str:
    """The setting as it is read; UsageError with what is wrong with it."""
    try:
        return str(getattr(Settings.read({name: typed}, {}, trains=False), name))
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def _existing(typed: str) -> str:
    place = _whole(_checked("data_uri", typed))
    if not is_bucket_uri(place) and not Path(place).exists():
        raise click.UsageError(f"{place}: there is no such file or folder")
    return place


def _whole(place: str) -> str:
    """A folder with all folders above it: a container sees it under the same name."""
    return place if is_bucket_uri(place) else str(Path(place).resolve())
