"""Whatever JSON a stranger puts where a record of ours is read: a sentence, and nothing else."""

import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.small_adapters import TINY, random_adapter

from trainer.dataset.domain import DOMAIN
from trainer.errors import JobError, SettingsError
from trainer.inference.known_replies import KnownReplies
from trainer.models.adapter_config import CONFIG, LARGEST_RANK, WEIGHTS, read_adapter_config
from trainer.models.adapters import find_adapter
from trainer.models.base_model import Base
from trainer.models.locate import local_base
from trainer.models.safetensors_files import UnsoundError, in_order, parse_header
from trainer.models.tokenizer_limits import MOST_GROWTH
from trainer.models.weight_files import fetch_weights
from trainer.preparation.drafts import read_drafts
from trainer.preparation.journal import Journal
from trainer.reporting.model_card import base_card
from trainer.reporting.outcome import log_outcome
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.fingerprint import claim_run_id
from trainer.runs.layout import LATEST, finished_at, newest_run
from trainer.runtime.last_words import is_panic
from trainer.runtime.naming import digest
from trainer.setting_checks import RUN_ID
from trainer.settings import Settings
from trainer.storage import FolderStore, read_manifest
from trainer.storage.lease import owner_of
from trainer.tokenization import template_process
from trainer.tokenization.template_process import Refused, rendered
from trainer.tokenization.token_cache import WriteProgress
from trainer.training.checkpoint_state import (
    ADAPTER,
    BEST,
    PLAN,
    STATE,
    TENSORS,
    read_plan,
    read_state,
)
from trainer.training.checkpoint_state import TRAINER_STATE as POSITION
from trainer.training.checkpoint_validation import fault

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

KEYS = st.sampled_from(
    ["run_id", "finished", "objects", "size", "sha256", "peft_type", "r", "lora_alpha", "bias",
     "base_model_name_or_path", "revision", "target_modules", "hidden_size", "num_hidden_layers",
     "num_attention_heads", "rope_parameters", "vocab_size", "model_type", "architectures",
     "vocab", "init_inputs", "tokenizer_class", "eos_token", "added_tokens_decoder", "dtype",
     "shape", "data_offsets", "text_config", "hidden_act", "chat_template", "settings"]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["LORA", "none", "../../up", "/etc/passwd", 10**30, -1, "\x1b[8m", "F32"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(KEYS, st.text(max_size=8)), inner, max_size=6),
    ),
    max_leaves=12,
)
BYTES = st.one_of(
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
    st.sampled_from([b"[" * 100_000, b"\xff\xfe{}", b'{"a": 1e999}', b"1" * 5000]),
)


SETTINGS = Settings.read({}, {}, trains=False)
RUN = Settings.read({}, {"QLORA_DATA_URI": "d", "QLORA_OUTPUT_URI": "o", "QLORA_RUN_ID": "mine"})


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@fuzzed
@given(BYTES)
def test_what_a_store_holds(data: bytes) -> None:
    with folder() as at:
        store = FolderStore(at)
        store.write(LATEST, data)
        store.write("run/manifest.json", data)
        store.write("mine/fingerprint.json", data)
        (at / "owner").write_bytes(data)
        found = newest_run(store)
        assert found is None or RUN_ID.fullmatch(found)
        assert finished_at(data) >= 0
        assert len(owner_of(at)) == 32
        with suppress(JobError):
            read_manifest(store, "run")
        assert claim_run_id(store, RUN, "{}").startswith("mine")


@fuzzed
@given(BYTES, st.dictionaries(KEYS, VALUES, max_size=4))
def test_the_config_of_an_adapter(data: bytes, changes: dict[str, Any]) -> None:
    sound = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "a/b"}
    for content in (data, json.dumps(sound | changes).encode()):
        with folder() as at:
            (at / WEIGHTS).write_bytes(b"")
            (at / CONFIG).write_bytes(content)
            with suppress(JobError):
                assert 1 <= read_adapter_config(at)["r"] <= LARGEST_RANK


@settings(fuzzed, max_examples=EXAMPLES // 4)  # each makes a model of it, twice
@given(BYTES, st.dictionaries(KEYS, VALUES, max_size=3))
def test_the_config_of_a_base(data: bytes, changes: dict[str, Any]) -> None:
    plain = json.loads((TINY / "config.json").read_text())
    for content in (data, json.dumps(plain | changes).encode()):
        with folder() as at:
            shutil.copytree(TINY, at / "base")
            (at / "base" / "config.json").write_bytes(content)
            (at / "base" / "README.md").write_bytes(b"---\n" + data + b"\n---\n")
            assert isinstance(base_card(at / "base"), dict)
            with suppress(JobError):
                local_base(at / "base", "mine").shape()


@fuzzed
@given(BYTES, st.dictionaries(KEYS, VALUES, max_size=3))
def test_the_config_of_a_tokenizer(data: bytes, changes: dict[str, Any]) -> None:
    for content in (data, json.dumps(changes).encode()):
        with folder() as at:
            base = shutil.copytree(TINY, at / "base")
            (base / "tokenizer_config.json").write_bytes(content)
            with suppress(JobError):
                local_base(base, "mine").tokenizer()


@contextmanager
def panics_allowed() -> Iterator[None]:
    """Of the library in Rust: they end a run with a sentence."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise


BESIDE = ["tokenizer_config.json", "tokenizer.json", "quantization_config.json", DOMAIN, "run.json"]


@lru_cache(maxsize=1)
def kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@lru_cache(maxsize=1)
def adapter() -> Path:
    return random_adapter(Path(kept().name))


@settings(fuzzed, max_examples=max(10, EXAMPLES // 4))
@given(BYTES, st.dictionaries(KEYS, VALUES, max_size=3), st.sampled_from(BESIDE))
def test_a_file_beside_an_adapter(data: bytes, changes: dict[str, Any], name: str) -> None:
    place = Path(name) if name == "run.json" else Path("adapter", name)
    there = (adapter() / place).read_bytes() if (adapter() / place).is_file() else b"{}"
    for content in (data, json.dumps(json.loads(there) | changes).encode()):
        with folder() as at:
            run = shutil.copytree(adapter(), at / "run")
            (run / place).write_bytes(content)
            found = find_adapter(str(run), SETTINGS)
            assert found.remembers in (True, False)
            assert all(isinstance(warning, str) for warning in found.warnings)
            for look in (found.tokenizer, found.compute_dtype, lambda of=found: of.domain):
                with suppress(JobError), panics_allowed():
                    look()


SHORT = st.one_of(st.text(max_size=3), st.sampled_from(["", ".", "x" * 50, "a" * 1000, "▁"]))
STEPS = st.recursive(
    st.one_of(
        VALUES,
        st.builds(
            lambda kind, pattern, content: {
                "type": "Replace", "pattern": {kind: pattern}, "content": content
            },
            st.sampled_from(["String", "Regex"]), SHORT, SHORT,
        ),
        st.builds(lambda text: {"type": "Prepend", "prepend": text}, SHORT),
        st.builds(
            lambda text: {"type": "Precompiled", "precompiled_charsmap": text},
            st.one_of(st.binary(max_size=60).map(lambda b: base64.b64encode(b).decode()), SHORT),
        ),
        st.sampled_from(["NFKC", "Lowercase", "Fuse", "ByteLevel", "ByteFallback", "Nmt"]).map(
            lambda name: {"type": name}
        ),
    ),
    lambda inner: st.builds(
        lambda name, steps: {"type": "Sequence", name: steps},
        st.sampled_from(["normalizers", "decoders"]), st.lists(inner, max_size=4),
    ),
    max_leaves=5,
)  # fmt: skip
TEXT = "Why is it so, and what about the rest of it? Ä ﷺ 日本 \u202e" * 3


@settings(fuzzed, max_examples=max(10, EXAMPLES // 4))
@given(STEPS, STEPS, st.dictionaries(KEYS, VALUES, max_size=2))
def test_the_parts_of_a_tokenizer(normalizer: Any, decoder: Any, around: dict[str, Any]) -> None:
    made = json.loads((TINY / "tokenizer.json").read_text())
    made |= {"normalizer": normalizer, "decoder": decoder}
    made["post_processor"] = made["post_processor"] | around
    with folder() as at:
        base = shutil.copytree(TINY, at / "base")
        (base / "tokenizer.json").write_text(json.dumps(made))
        with suppress(JobError), panics_allowed():
            tokenizer = local_base(base, "mine").tokenizer()
            # What stands before it in the tokenizer, and forms of Unicode, may add to it.
            assert len(tokenizer(TEXT)["input_ids"]) <= MOST_GROWTH * 20 * len(TEXT)
            assert len(tokenizer.decode(list(range(300, 400)))) <= MOST_GROWTH * 100 * 20


PIECES = st.sampled_from(
    ["{{ ", " }}", "{% for m in messages %}", "{% endfor %}", "{% if m %}", "{% endif %}",
     "{% set x = ", " %}", "m.content", "messages", "x", "n", "'a'", "'ab' * 99999", "9999999999",
     " ~ ", " + ", " * ", " ** ", " // ", " % ", " in ", "|join(x)", "|center(10 ** 9)", "|list",
     "|tojson(indent=99999999)", "|batch(10 ** 9, x)", "|replace('a', x)", "|int(n, 16)", "|sort",
     "[n] * 9999999", "range(99999)", ".split('a')", ".__class__", "|round(10 ** 9, 'ceil')", "\n",
     "{% macro f(a) %}", "{% endmacro %}", "f(x)", "|map('center', 10 ** 8)", "|urlize"]
)  # fmt: skip


@settings(
    max_examples=max(10, EXAMPLES // 4), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=40)), VALUES)
def test_a_chat_template(template: str, value: Any) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(template_process, "MOST_S", 0.3)
        with suppress(Refused, SettingsError):
            (text,) = rendered(template, {"messages": [{"content": value}], "n": 16, "x": "a"})
            assert len(text) < template_process.MEMORY_BYTES


@fuzzed
@given(BYTES, st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from([PLAN, STATE, POSITION]))
def test_a_file_of_a_checkpoint(data: bytes, changes: dict[str, Any], name: str) -> None:
    sound: dict[str, Any] = {"global_step": 1, "log_history": [{"step": 1}], "blocks": 1}
    for content in (data, json.dumps(sound | changes).encode()):
        with folder() as at:
            checkpoint = at / "step-000001"
            checkpoint.mkdir()
            for tensors in (ADAPTER, TENSORS, BEST):
                save_file({}, checkpoint / tensors)
            (checkpoint / name).write_bytes(content)
            (checkpoint / "manifest.json").write_bytes(content)
            assert fault(checkpoint, {}, {"state": {}, "param_groups": []}, keeps_best=True)
            store = FolderStore(at / "output")
            assert Checkpoints(at, store, "run/checkpoints", "{}", "0" * 32).newest() is None


@fuzzed
@given(BYTES, st.dictionaries(st.text(max_size=5), st.dictionaries(KEYS, VALUES), max_size=3))
def test_the_header_of_a_safetensors_file(data: bytes, entries: dict[str, Any]) -> None:
    for content in (data, json.dumps(entries).encode()):
        with suppress(UnsoundError):
            for entry in in_order(parse_header(content)):
                assert entry.size >= 0


@fuzzed
@given(BYTES, st.dictionaries(KEYS, VALUES, max_size=3))
def test_what_an_earlier_run_left(data: bytes, changes: dict[str, Any]) -> None:
    for content in (data, json.dumps(changes).encode()):
        with folder() as at:
            (at / f"{digest('base')}.json").write_bytes(content)
            assert KnownReplies(at, "base").of("none") is None
            for name in (STATE, PLAN):
                (at / name).write_bytes(content)
            save_file({}, at / TENSORS)
            with suppress(ValueError):
                read_state(at)
            with suppress(ValueError):
                read_plan(at)
            text = content.decode(errors="replace")
            with suppress(ValueError):
                WriteProgress.parse(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
            (at / "cache").write_bytes(b"\n".join([content, content]) + b"\n")
            with suppress(ValueError):
                read_drafts(Journal(at / "cache").get("none"))
            log_outcome(content, "run")


@fuzzed
@given(BYTES, st.dictionaries(KEYS, VALUES, max_size=3))
def test_the_index_of_a_base(data: bytes, changes: dict[str, Any]) -> None:
    for content in (data, json.dumps({"weight_map": changes}).encode()):
        with folder() as at:
            (at / "model.safetensors.index.json").write_bytes(content)
            with suppress(JobError):
                fetch_weights(Base(at, "mine", "abc"), RUN)
