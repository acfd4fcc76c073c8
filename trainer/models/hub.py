"""Models of the Hugging Face hub: into its cache on this disk, and what its refusals mean."""

import hashlib
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from trainer.errors import NotAllowedError, SettingsError, UnreachableError
from trainer.monitoring.counting import waiting
from trainer.runtime.log import figures
from trainer.settings import Settings
from trainer.storage import DamagedError, Store, fetch_verified, retry_if_damaged
from trainer.storage.endpoints import refuse_link_local
from trainer.storage.files import chunks_of
from trainer.storage.retry import Failure, retry
from trainer.uris import publishable_uri

log = logging.getLogger(__name__)


SILENCE_S = 10.0  # of a hub that took the connection; its client would wait without end
PUSH_SILENCE_S = 120.0  # while it takes in a commit


def snapshot(
    model_id: str, revision: str, patterns: list[str], *, retry_minutes: float, most_bytes: int = 0
) -> Path:
    """The local folder of a model, with the files that match `patterns`; named by its commit.

    With `most_bytes` those of its top folder alone, which must not have more together. Raises
    SettingsError, NotAllowedError or UnreachableError.
    """
    from huggingface_hub import constants, snapshot_download

    refuse_link_local("HF_ENDPOINT", constants.ENDPOINT)

    _give_up_after(SILENCE_S)

    def download() -> Path:
        if most_bytes:
            _refuse_large(model_id, revision, patterns, most_bytes)
        folder = snapshot_download(
            model_id,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=["*/*"] if most_bytes else None,
        )
        return Path(folder)

    with waiting(f"fetching {model_id}"):
        return retry(
            download,
            lambda error: _failure(error, model_id, revision),
            where=model_id,
            minutes=retry_minutes,
        )


def _refuse_large(model_id: str, revision: str, patterns: list[str], most_bytes: int) -> None:
    """Before anything is downloaded; a hub that does not answer says nothing of what is cached."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        found = HfApi().model_info(model_id, revision=revision, files_metadata=True)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.TransportError):
        return  # the download that follows says why
    sizes = {
        one.rfilename: one.size or 0
        for one in found.siblings or ()
        if "/" not in one.rfilename and any(fnmatch(one.rfilename, like) for like in patterns)
    }
    if sum(sizes.values()) > most_bytes:
        raise SettingsError(
            f"{model_id}: its configs and tokenizer files have {sum(sizes.values()) >> 20:,} MiB, "
            f"{max(sizes, key=lambda name: sizes[name])} the most, and {most_bytes >> 20} are "
            "more than any model needs; choose another QLORA_BASE_MODEL"
        )


def read(folder: Path, name: str, model_id: str, *, retry_minutes: float) -> Iterator[bytes]:
    """A file of a snapshot, compared with the hub's digest while it passes.

    Raises DamagedError at the end, and removes the file, so that another call fetches it again:
    the hub's client compares sizes only.
    """
    path = folder / name
    if not path.is_file():
        snapshot(model_id, folder.name, [name], retry_minutes=retry_minutes)
    blob = path.readlink() if path.is_symlink() else Path()  # named by the hub's ETag
    digest = _digest(blob.name, path.stat().st_size)
    for chunk in chunks_of(path):
        digest.update(chunk)
        yield chunk
    if len(blob.name) in (40, 64) and digest.hexdigest() != blob.name:
        with suppress(OSError):  # a cache that cannot be written keeps it
            for place in (path.resolve(), folder / blob, path):
                place.unlink(missing_ok=True)
        raise DamagedError(
            f"{model_id}/{name}: its bytes are not those of the digest that the hub gives; start "
            "again, and look at what is between here and the hub if that does not help"
        )


def check(folder: Path, names: Iterable[str], model_id: str, *, retry_minutes: float) -> None:
    """Read files of a snapshot to their end, for whoever does not do it. Raises as `read`."""
    for name in names:

        def whole(name: str = name) -> None:
            deque(read(folder, name, model_id, retry_minutes=retry_minutes), maxlen=0)

        retry_if_damaged(whole)


def _digest(blob: str, size: int) -> "hashlib._Hash":
    """SHA-256 of large files, and of small ones what git makes of them."""
    if len(blob) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def check_push(repo: str) -> None:
    """Raises SettingsError without a token, and NotAllowedError where the hub says that this one
    may not write to `repo`. One that does not exist, and a hub that does not answer, may by then.
    """
    import httpx2
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if get_token() is None:
        raise SettingsError(f"QLORA_HUB_REPO={repo}: needs HF_TOKEN, with leave to write there")
    refuse_link_local("HF_ENDPOINT", constants.ENDPOINT)
    try:
        HfApi().auth_check(repo, write=True)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403) and not _is_unknown(error):
            raise NotAllowedError(
                f"QLORA_HUB_REPO={repo}: the hub does not let this HF_TOKEN write there "
                f"({status}); set one that may, or another QLORA_HUB_REPO"
            ) from None
    except (httpx2.TransportError, OfflineModeIsEnabled) as error:
        log.warning("whether %s can be pushed to is not known (%s)", repo, type(error).__name__)


def _is_unknown(error: Exception) -> bool:
    """The hub also answers so, with 401, for a repository that does not exist yet."""
    from huggingface_hub.errors import RepositoryNotFoundError

    return isinstance(error, RepositoryNotFoundError)


def push(folder: Path, repo: str, title: str, *, retry_minutes: float) -> str:
    """Upload `folder` as the model `repo`; returns the address of the commit.

    A repository that does not exist yet is made, private. What is there already is left as it is.
    Raises NotAllowedError or UnreachableError.
    """
    from huggingface_hub import HfApi, constants

    refuse_link_local("HF_ENDPOINT", constants.ENDPOINT)

    _give_up_after(PUSH_SILENCE_S)

    def send() -> str:
        api = HfApi()
        api.create_repo(repo, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=title)
        return str(commit.commit_url)

    return retry(send, lambda error: _push_failure(error, repo), where=repo, minutes=retry_minutes)


def push_published(store: Store, run_id: str, folder: Path, settings: Settings) -> None:
    """Push the adapter of a published run, from `store` by way of `folder`: so that a later start
    can do it too. Raises as `push`."""
    fetch_verified(store, run_id, folder, only_prefix="adapter/")
    address = push(
        folder / "adapter",
        settings.hub_repo,
        f"Adapter of run {run_id}",
        retry_minutes=settings.storage_retry_minutes,
    )
    log.info("pushed to %s", address, extra=figures(hub=address))


def _give_up_after(silence_s: float) -> None:
    """From now on, in every request to the hub whose caller names no other limit: the client asks
    what a model holds without any."""
    from huggingface_hub import get_session

    def limit(request: Any) -> None:
        limits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            name: silence_s if seconds is None else seconds for name, seconds in limits.items()
        }

    session = get_session()
    others = [hook for hook in session.event_hooks["request"] if hook.__module__ != __name__]
    session.event_hooks = session.event_hooks | {"request": [*others, limit]}


def _push_failure(error: Exception, repo: str) -> Failure | None:
    import httpx2
    from huggingface_hub import errors as hub

    status = getattr(getattr(error, "response", None), "status_code", 0)
    again = "start the run again: it is published, and only this is left to do"
    if isinstance(error, hub.RepositoryNotFoundError) or status in (401, 403):
        fact = "the hub refused to let the adapter be pushed"
        return Failure(NotAllowedError, fact, f"set an HF_TOKEN that may write there and {again}")
    if isinstance(error, hub.OfflineModeIsEnabled):
        return Failure(
            UnreachableError, "the hub is switched off", f"unset HF_HUB_OFFLINE; {again}"
        )
    if isinstance(error, httpx2.TransportError | hub.HfHubHTTPError):
        fact = f"the hub did not answer ({type(error).__name__}{f' {status}' if status else ''})"
        return Failure(UnreachableError, fact, again, passing=status in (0, 429) or status >= 500)
    return None


def _failure(error: Exception, model_id: str, revision: str) -> Failure | None:
    """What an exception of the hub client means; None for one that is not the hub's."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    answers = (hub.OfflineModeIsEnabled, hub.HfHubHTTPError, httpx2.TransportError)
    if isinstance(error, hub.LocalEntryNotFoundError) and isinstance(error.__cause__, answers):
        error = error.__cause__  # why the client looked in its cache, where the model is not
    page = f"https://huggingface.co/{model_id}"
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, hub.GatedRepoError):
        return Failure(NotAllowedError, "is gated", f"accept its terms at {page} and set HF_TOKEN")
    if isinstance(error, hub.RevisionNotFoundError):
        fact = f"has no revision {revision!r}"
        return Failure(SettingsError, fact, f"set QLORA_BASE_REVISION to one listed at {page}")
    if status == 401 and not isinstance(error, hub.RepositoryNotFoundError):
        step = (
            "set HF_TOKEN to a valid one from https://huggingface.co/settings/tokens, or unset it"
        )
        return Failure(NotAllowedError, "the hub does not accept the token", step)
    if isinstance(error, hub.RepositoryNotFoundError) or status == 403:
        fact = "the hub knows no such model, or it is private"
        return Failure(NotAllowedError, fact, f"check the name at {page} or set HF_TOKEN")
    if isinstance(error, hub.HFValidationError):
        step = "set QLORA_BASE_MODEL to owner/name, a folder or an s3:// prefix"
        return Failure(SettingsError, "is no model id", step)
    if isinstance(error, ValueError | KeyError):  # a page, or JSON of something else
        fact = f"{publishable_uri(constants.ENDPOINT)} answers and is no hub"
        return Failure(SettingsError, fact, "correct or unset HF_ENDPOINT, and check the proxy")
    if isinstance(error, hub.OfflineModeIsEnabled):
        step = "unset HF_HUB_OFFLINE or fill the cache at HF_HOME first"
        return Failure(UnreachableError, "is not in the cache and the hub is switched off", step)
    if isinstance(error, httpx2.TransportError | hub.HfHubHTTPError | hub.LocalEntryNotFoundError):
        fact = f"the hub did not answer ({type(error).__name__}{f' {status}' if status else ''})"
        step = "check the network, or set QLORA_BASE_MODEL to a folder or an s3:// prefix"
        return Failure(UnreachableError, fact, step, passing=status in (0, 429) or status >= 500)
    return None
