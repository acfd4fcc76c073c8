"""The commands, their logging and their exit codes."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from trainer.distributed.workers import Workers
from trainer.errors import JobError, SettingsError
from trainer.flags import CommandWithSettings, EnvFileOption, versions, with_settings
from trainer.monitoring.counting import import_in_sight
from trainer.options import ENV_PREFIX
from trainer.runtime import last_words, lean_imports, log, malloc, signals
from trainer.runtime.device import wake_gpu
from trainer.runtime.env_file import load_env_file
from trainer.settings import PATIENCE_MINUTES, Settings
from trainer.storage.s3 import request_options
from trainer.storage.scratch import take_scratch

ENV_FILE = ".env"
ADAPTER = "A run, or an output for the newest run in it; local or s3://."
ADAPTERS = f"{ADAPTER} With --serve more than once, also as NAME=WHERE."


def main() -> None:
    """Run the command line and end the process with the exit code of what happened."""
    try:
        signals.deliver()
        lean_imports.collect_rarely()
        malloc.limit_arenas()
        # OpenMP threads that spin while they wait take the cores from those that work: on two
        # cores with other work on them a 4-bit layer on the CPU was 100 times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        cli.main(standalone_mode=False)
        lean_imports.collect_no_more()
    except JobError as error:
        last_words.end(error)
    except BrokenPipeError:  # whoever read our output has read enough
        os._exit(0)
    except signals.Stopped:
        last_words.end(signals.interruption())
    except click.ClickException as error:
        last_words.end(last_words.misused(error))
    except BaseException as error:
        last_words.unforeseen(error)


class _TrainByDefault(click.Group):
    """A group whose command is `train` when none is named; each has `--env-file`."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.params.append(EnvFileOption())
        super().add_command(cmd, name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = EnvFileOption.behind_command(args, self.commands)
        first = args[0] if args else "" if ctx.resilient_parsing else "-"  # a shell that completes
        if first.startswith("-") and first not in ("--help", "--version"):
            args = ["train", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_TrainByDefault, context_settings={"max_content_width": 100})
@click.version_option(versions(), prog_name="qlora-job")
def cli() -> None:
    """Fine-tune a language model with QLoRA on your own documents.

    Without a command it trains. Every option of `train` is also an environment variable:
    --lora-r is QLORA_LORA_R.

    Completion, where pip installed it: eval "$(_QLORA_JOB_COMPLETE=bash_source qlora-job)"
    """


def _settings(flags: Mapping[str, str | None], *, trains: bool = True) -> Settings:
    """Of a command that does not train somebody waits for the answer: unless it is said how long,
    it does not wait for a store or hub out of reach."""
    given = {name: value for name, value in os.environ.items() if value or trains}
    usual = {} if trains else {"QLORA_STORAGE_RETRY_MINUTES": PATIENCE_MINUTES}
    settings = Settings.read(flags, usual | given, trains=trains)
    take_scratch(settings.scratch_dir)
    request_options.set_default(
        request_options.RequestOptions(settings.s3_requester_pays == "yes", settings.s3_kms_key)
    )
    return settings


def _of_an_adapter(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the two options that say which adapter, on which base."""
    return click.option("--adapter", required=True, help=ADAPTER)(_of_a_base(command))


def _of_a_base(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--base-model",
        envvar="QLORA_BASE_MODEL",
        help="Where the base model is, if not where the adapter says.",
    )(command)


@cli.command(cls=CommandWithSettings)
@with_settings
def train(**flags: str | None) -> None:
    """Fine-tune, evaluate and publish an adapter."""
    if _is_first_start(flags):
        from trainer.commands.welcome import ask_for_settings, welcome

        if welcome():
            if (written := ask_for_settings(Path(ENV_FILE))) is None:
                return
            load_env_file(written)
    workers = Workers.from_environment(os.environ)
    settings = workers.settings_for_rank(_settings(flags))
    log.set_up(settings.log_format, settings.log_level)
    wake_gpu()
    import_in_sight("trainer.job")
    from trainer.job import run

    run(settings, workers)


def _is_first_start(flags: Mapping[str, str | None]) -> bool:
    """Whether somebody at a terminal has set nothing yet."""
    is_set = any(flags.values()) or any(name.startswith(ENV_PREFIX) for name in os.environ)
    return not is_set and sys.stdin.isatty() and sys.stdout.isatty()


@cli.command("init")
@click.argument("file", default=ENV_FILE, type=click.Path(dir_okay=False))
@click.pass_context
def init_command(ctx: click.Context, file: str) -> None:
    """Ask on a terminal what a run needs, look at the data, and write it to FILE (.env).

    The command itself (--env-file), docker, compose and k8s/submit read FILE.
    """
    from trainer.commands.welcome import ask_for_settings

    if (written := ask_for_settings(Path(file))) is not None:
        load_env_file(written)
        ctx.invoke(train)


@cli.command(cls=CommandWithSettings)
@with_settings
def prepare(**flags: str | None) -> None:
    """Have the base model make question/answer records of documents. Trains nothing.

    Passages of DATA_URI become OUTPUT_URI/questions.jsonl, which `train` reads as it is.
    """
    settings = _settings(flags)
    log.set_up(settings.log_format, settings.log_level)
    from trainer.commands.prepare import prepare_questions

    prepare_questions(settings)


@cli.command(cls=CommandWithSettings)
@with_settings
@click.option("--gpu", help="Plan for t4, l4, a10g, a100, h100 or h200 instead of this machine.")
@click.option("--workers", type=click.IntRange(1), default=1, help="GPUs that train together.")
@click.option("--tokens", type=click.IntRange(1), help="Tokens to train, instead of DATA_URI's.")
@click.option("--price", type=click.FloatRange(0), help="Of one GPU for an hour.")
def plan(
    gpu: str | None, workers: int, tokens: int | None, price: float | None, **flags: str | None
) -> None:
    """Say what a run would do: steps, memory, speed, time, traffic. Trains nothing.

    With DATA_URI by the data itself, and with what of it is too short to learn from.
    """
    settings = _settings(flags, trains=False)
    log.set_up("text", "WARNING")
    import_in_sight("trainer.commands.plan", "transformers")
    from trainer.commands.plan import PlanRequest, plan_run
    from trainer.planner.gpus import GPUS

    if gpu is not None and gpu.lower() not in GPUS:
        raise SettingsError(f"--gpu {gpu}: known are {', '.join(GPUS)}")
    click.echo(plan_run(settings, PlanRequest(gpu and gpu.lower(), workers, tokens, price)))


@cli.command("inspect", cls=CommandWithSettings)
@with_settings
@click.option(
    "--examples", type=click.IntRange(0), default=3, show_default=True, help="Records to show."
)
def inspect_command(examples: int, **flags: str | None) -> None:
    """Show what DATA_URI becomes and what of it would be trained. Trains nothing.

    On a terminal in colour; elsewhere one JSON object.
    """
    settings = _settings(flags, trains=False)
    if not settings.data_uri:
        raise SettingsError("nothing to look at: give --data-uri (QLORA_DATA_URI)")
    log.set_up("text", "WARNING", sys.stderr)
    import_in_sight("trainer.commands.inspect", "transformers")
    from trainer.commands.inspect import inspect_data

    found = inspect_data(settings, examples)
    if log.wants_text(settings.log_format):
        width = log.columns(sys.stdout)
        click.echo(found.as_text(width, is_coloured=log.wants_colour()))
    else:
        click.echo(found.as_json())


@cli.command()
@click.option("--adapter", "adapters", required=True, multiple=True, help=ADAPTERS)
@_of_a_base
@click.option("--compare", is_flag=True, help="Show the base model's answer too.")
@click.option("--serve", is_flag=True, help="A page and OpenAI's API, for this machine only.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Of --serve."
)
@click.option("--api-key", envvar="SERVE_API_KEY", default="", help="--serve wants it sent.")
@click.argument("question", nargs=-1)
def ask(
    adapters: tuple[str, ...],
    base_model: str | None,
    compare: bool,
    serve: bool,
    port: int,
    api_key: str,
    question: tuple[str, ...],
) -> None:
    """Answer QUESTION, or each line of standard input, with a fine-tuned model.

    On a terminal without QUESTION it is a conversation.
    """
    if question and not " ".join(question).strip():
        raise SettingsError("the question is empty; leave it out for a conversation")
    if len(adapters) > 1 and not serve:
        raise SettingsError("several adapters answer with --serve; name one, or add that")
    settings = _settings({}, trains=False)
    log.set_up("text", "WARNING", sys.stderr)
    import_in_sight("trainer.inference.chat_model", "transformers", "peft")
    from trainer.commands import chat
    from trainer.commands import serve as serving
    from trainer.inference.chat_model import load_chat_model, load_chat_models

    if serve:
        models = load_chat_models(serving.names_of(adapters), settings, base_model)
        serving.serve(models, port, compare=compare, key=api_key)
        return
    model = load_chat_model(adapters[0], settings, base_model)
    if not question and chat.is_terminal():
        chat.converse(model, adapters[0], compare=compare)
    else:
        chat.answer_all(model, [" ".join(question)] if question else sys.stdin, compare=compare)


@cli.command(cls=CommandWithSettings)
@with_settings
@click.option("--adapter", required=True, help=ADAPTER)
@click.option(
    "--as",
    "form",
    type=click.Choice(["nf4", "16bit", "merged"]),
    default="nf4",
    show_default=True,
    help="On the 4-bit base it was trained on, on the 16-bit base, or as `merge` writes it.",
)
@click.option(
    "--documents",
    default="",
    help="Ask both models with the three best passages of these documents in view too.",
)
def evaluate(adapter: str, form: str, documents: str, **flags: str | None) -> None:
    """Compare a fine-tuned model with its base on EVAL_URI, or on what DATA_URI holds out."""
    settings = _settings(flags, trains=False)
    if not (settings.eval_uri or settings.data_uri):
        raise SettingsError("nothing to judge by: give --eval-uri (QLORA_EVAL_URI)")
    log.set_up("text", "WARNING", sys.stderr)
    import_in_sight("trainer.commands.evaluate", "transformers", "peft")
    from trainer.commands.evaluate import evaluate_adapter

    base_model = flags["base_model"] or os.environ.get("QLORA_BASE_MODEL")
    result = evaluate_adapter(adapter, settings, base_model, form, documents)
    is_text = log.wants_text(settings.log_format)
    click.echo(log.for_terminal(result.as_text()) if is_text else result.as_json())


def _of_base_weights(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the option that says which of the base's weights it starts from."""
    return click.option(
        "--base-weights",
        type=click.Choice(["nf4", "16bit"]),
        default="nf4",
        show_default=True,
        help="Start from the 4-bit values that were trained on, or the base's own weights.",
    )(command)


@cli.command()
@_of_an_adapter
@_of_base_weights
@click.option("--output", required=True, help="A new folder for the model.")
def merge(adapter: str, output: str, base_model: str | None, base_weights: str) -> None:
    """Write base and adapter as one 16-bit model. Needs no GPU and little memory."""
    folder = _folder(output)
    settings = _settings({}, trains=False)
    log.set_up(settings.log_format, settings.log_level)
    import_in_sight("trainer.export.merged")
    from trainer.export.merged import merge
    from trainer.models.adapters import find_adapter

    merge(find_adapter(adapter, settings, base_model), settings, folder, base_weights)


@cli.command()
@_of_an_adapter
@_of_base_weights
@click.option("--output", required=True, help="A new folder for the files.")
@click.option(
    "--part",
    "parts",
    type=click.Choice(["merged", "adapter", "base"]),
    multiple=True,
    default=["merged"],
    help="What to write; may be given more than once.  [default: merged]",
)
def export(
    adapter: str, output: str, base_model: str | None, base_weights: str, parts: tuple[str, ...]
) -> None:
    """Write GGUF files for llama.cpp and Ollama, with a Modelfile.

    One model, or the small adapter for a base that several adapters share.
    """
    folder = _folder(output)
    settings = _settings({}, trains=False)
    log.set_up(settings.log_format, settings.log_level)
    import_in_sight("torch", "trainer.export.gguf")
    from trainer.export.exporters import exporter
    from trainer.models.adapters import find_adapter

    found = find_adapter(adapter, settings, base_model)
    exporter("gguf")(found, settings, parts, folder, base_weights)


def _folder(output: str) -> Path:
    if "://" in output:
        raise SettingsError(f"--output {output}: is written to a folder; copy it from there")
    return Path(output)


if __name__ == "__main__":  # `python -m trainer` hears a signal a second earlier
    signals.install()
    main()
