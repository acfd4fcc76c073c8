"""A finished adapter and the base model that it belongs to, wherever they are."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from trainer.dataset.domain import DOMAIN, Domain
from trainer.errors import DataError, Interrupted, SettingsError
from trainer.models import base_model
from trainer.models.adapter_config import (
    CONFIG,
    WEIGHTS,
    lora_config,
    read_adapter_config,
    refuse_infinite,
)
from trainer.models.adapter_files import QUANTISATION, without_twins
from trainer.models.locate import locate_base, noted_folder
from trainer.models.tokenizer_files import load_tokenizer
from trainer.monitoring.counting import waiting
from trainer.runs.layout import RECORD, REJECTED, newest_run
from trainer.runtime.json_records import read_object, well_formed
from trainer.runtime.log import one_line
from trainer.runtime.naming import digest
from trainer.settings import Settings
from trainer.storage import Store, fetch_verified, open_store, read_manifest
from trainer.storage.files import only_process

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Known = TypeVar("Known")


@dataclass(frozen=True)
class Adapter:
    """The adapter's files on local disk, what peft says about it, and its base."""

    folder: Path
    config: dict[str, Any]
    base: base_model.Base

    @property
    def remembers(self) -> bool:
        """Whether its run says that it was trained on questions that follow others."""
        return self._recorded(lambda record: record["data"]["several_turns"] is True, False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its run says that one should know of it."""
        return self._recorded(lambda record: tuple(map(str, record["warnings"])), ())

    def _recorded(self, field: Callable[[dict[str, Any]], Known], unknown: Known) -> Known:
        try:
            with well_formed("a record of a run"):
                return field(read_object(self.folder.parent / RECORD))
        except (OSError, ValueError):  # another tool's, or an older one
            return unknown

    @property
    def domain(self) -> Domain | None:
        """What the documents speak of that it was trained on, where its run says so. Raises
        DataError for a file that is damaged."""
        try:
            return Domain.read(self.folder)
        except ValueError as error:
            raise DataError(
                f"{DOMAIN} is damaged ({error}); bring the adapter there again"
            ) from error

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    def compute_dtype(self) -> "torch.dtype":
        """To which the base's NF4 values were dequantised while the adapter was trained.

        One that does not say so (another tool's, or an older one) is taken to have been trained in
        the base's own. Raises DataError for a file that is damaged.
        """
        import torch

        file, known = self.folder / QUANTISATION, ("bfloat16", "float16", "float32")
        if not file.is_file():
            own = str(self.base.stored_dtype()).removeprefix("torch.")
            name = own if own in known else "float32"
            log.info("the adapter does not say in which precision it was trained; taking %s", name)
            return cast("torch.dtype", getattr(torch, name))
        try:
            name = read_object(file).get("bnb_4bit_compute_dtype", "")
        except ValueError:
            name = ""
        if name not in known:
            raise DataError(f"{QUANTISATION} is damaged; bring the adapter there again")
        return cast("torch.dtype", getattr(torch, name))

    def attach(self, model: Any, name: str = "default") -> Any:
        """`model`, its base, with the adapter on it, beside others that it has already by other
        names. Raises DataError where it does not fit."""
        from peft import PeftModel, get_peft_model
        from peft.utils.save_and_load import load_peft_weights, set_peft_model_state_dict
        from safetensors import SafetensorError

        try:
            config, tuned = lora_config(self.folder, self.config), model
            if isinstance(model, PeftModel):
                tuned.add_adapter(name, config)
            else:
                tuned = get_peft_model(model, config, adapter_name=name)
            weights = load_peft_weights(str(self.folder), device="cpu")
            refuse_infinite(weights)
            weights = without_twins(weights, self.base)
            loaded = set_peft_model_state_dict(tuned, weights, adapter_name=name)
        except (
            ValueError,
            RuntimeError,
            SafetensorError,
        ) as error:  # modules or shapes that the base does not have
            raise self._misfit(one_line(error, 160)) from error
        own = f".{name}."
        left = [key for key in loaded.missing_keys if ".lora_" in key and own in key]
        if wrong := [*left, *loaded.unexpected_keys]:
            raise self._misfit(f"{len(wrong)} weights are missing or unknown, as {wrong[0]}")
        return tuned

    def _misfit(self, fact: str) -> DataError:
        return DataError(
            f"the adapter does not fit {self.base.name} ({fact}); it was trained on "
            f"{self.config['base_model_name_or_path']}: name that, or leave --base-model out"
        )

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The one that is saved with the adapter; the base's where another tool saved none. Raises
        DataError for one that cannot be read."""
        if not (self.folder / "tokenizer_config.json").is_file():
            return self.base.tokenizer()
        try:
            return load_tokenizer(self.folder)
        except Interrupted:
            raise
        except Exception as error:  # tokenizers raises nothing narrower
            fact = one_line(error, 200) or type(error).__name__
            raise DataError(
                f"the adapter's tokenizer cannot be read ({fact}); bring the adapter there again "
                "or use another"
            ) from error


@waiting("finding the adapter")
def find_adapter(where: str, settings: Settings, base_model: str | None = None) -> Adapter:
    """The adapter at `where`: a run, its adapter folder, or an output with the newest of its runs.

    The base is the one that the adapter names, unless `base_model` names another; `load_base`
    and `fetch_weights` bring its weights. Raises DataError when there is no adapter,
    SettingsError when its base cannot be found by name.
    """
    folder = _bring(where, settings)
    config = read_adapter_config(folder)
    # Other tools leave the revision out.
    trained_on, revision = config["base_model_name_or_path"], config.get("revision")
    base = _base_of(trained_on, revision or settings.base_revision, settings, base_model)
    if revision is not None and base.revision != revision:
        log.warning("the adapter was trained on %s %s, not %s", trained_on, revision, base.revision)
    return Adapter(folder, config, base)


def _base_of(name: str, revision: str, settings: Settings, given: str | None) -> base_model.Base:
    if given:
        return locate_base(replace(settings, base_model=given))
    if "/" not in name and not name.startswith("builtin:"):
        if (folder := noted_folder(settings, name, revision)) is not None:
            return locate_base(replace(settings, base_model=str(folder)))
        raise SettingsError(
            f"the adapter was trained on a model in a folder named {name!r}; "
            "say where it is with --base-model"
        )
    return locate_base(replace(settings, base_model=name, base_revision=revision))


def _bring(where: str, settings: Settings) -> Path:
    """The local folder that holds the adapter's files, verified when they come from a bucket."""
    run = where.rstrip("/").removesuffix("/adapter")
    if "://" not in where:
        return _on_disk(where, run)
    uri, _, name = run.rpartition("/")
    store = open_store(uri, retry_minutes=settings.storage_retry_minutes)
    if read_manifest(store, name) is None:
        output = open_store(run, retry_minutes=settings.storage_retry_minutes)
        if (newest := _newest(output)) is not None:
            store, name = output, newest
        elif read_manifest(output, REJECTED) is not None:
            raise _rejected(run)
    # Nothing that a store says is part of the path, nor do two of one name share a folder.
    into = settings.scratch_dir / "adapters" / digest(store.uri + name)
    with only_process(into):
        fetch_verified(store, name, into, only_prefix="adapter/")
        (into / RECORD).write_bytes(store.read(f"{name}/{RECORD}") or b"{}")
    return into / "adapter"


def _on_disk(where: str, run: str) -> Path:
    folders = [Path(where), Path(run) / "adapter"]
    if where and (newest := _newest(open_store(where, retry_minutes=0))) is not None:
        folders.append(Path(where) / newest / "adapter")
    for folder in folders:
        if (folder / CONFIG).is_file():
            return folder
    if (Path(run) / REJECTED / "adapter" / CONFIG).is_file():
        raise _rejected(run)
    raise DataError(
        f"{where or '--adapter'}: no {CONFIG} there; name a run, its adapter folder, or an output "
        "folder with a finished run"
    )


def _rejected(run: str) -> DataError:
    return DataError(
        f"{run}: its adapter was rejected, {REJECTED}/report.html there says why; to use it "
        f"nevertheless, name {run}/{REJECTED}"
    )


def _newest(output: Store) -> str | None:
    run_id = newest_run(output)
    if run_id is not None:
        log.info("%s: the newest run there is %s", output.uri, run_id)
    return run_id
