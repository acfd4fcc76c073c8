"""A page and OpenAI's chat completions on this machine, to try fine-tuned models."""

import json
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from trainer.commands import completions, page
from trainer.commands.admission import USUAL, Admission, Limits
from trainer.commands.loopback import LoopbackHandler, LoopbackServer, RequestRefused
from trainer.commands.ratings import FILE, Ratings
from trainer.errors import DataError, JobError, SettingsError
from trainer.evaluation.verdict import caution
from trainer.inference.chat_model import ChatModel
from trainer.inference.streamed_answer import StreamedAnswer
from trainer.runtime.log import for_terminal
from trainer.runtime.naming import slug
from trainer.runtime.redaction import redact
from trainer.runtime.signals import Stopped

API = "/v1/"


class Server(LoopbackServer):
    """Models by name, of which the page asks the first. All have one base, whose name asks it."""

    def __init__(
        self,
        models: Mapping[str, ChatModel],
        port: int,
        *,
        compare: bool = False,
        limits: Limits = USUAL,
        key: str = "",
        kept_in: Path = FILE,
    ) -> None:
        self.limits, self.admission = limits, Admission(limits)
        self.ratings = Ratings(kept_in)
        self.ending = threading.Event()
        self.started = int(time.time())
        (name, self.first), *_ = models.items()
        self.models = {each: (model, True) for each, model in models.items()}
        self.models.setdefault(self.first.base, (self.first, False))
        names = {
            "BASE": self.first.base,
            "ADAPTER": name,
            "MOST_CHARACTERS": str(limits.characters),
            "MOST_SAID": str(limits.said),
            "KEPT_IN": str(self.ratings.path),
            "TUNED": "" if compare else "checked",
            "BOTH": "checked" if compare else "",
            "REMEMBERS": "checked" if self.first.remembers else "",
        }
        self.page = page.filled_page(names)
        super().__init__(port, Handler, key)

    def finish(self) -> None:
        """End the answers that are being made."""
        self.ending.set()
        if self.first.together is not None:
            self.first.together.finish()


class Handler(LoopbackHandler):
    """GET / is the page, whose questions are POST /ask and answered in lines of JSON, {"text": …}
    or {"error": …}; what it keeps is POST /keep; all under /v1/ is the API."""

    server: Server

    def do_GET(self) -> None:
        try:
            self.check_asker()
            if self.path.startswith(API):
                self.send_json(200, self._models())
            elif self.path == "/":
                nonce = secrets.token_urlsafe(16)
                body = self.server.page.replace("{{NONCE}}", nonce).encode()
                policy = {"Content-Security-Policy": page.POLICY.format(nonce)}
                self.send(200, "text/html; charset=utf-8", body, policy)
            else:
                raise RequestRefused(404, f"{self.path}: there is only / and {API}models")
        except RequestRefused as refused:
            self._refuse(refused)

    def do_POST(self) -> None:
        try:
            self.check_asker()
            if self.path == "/ask":
                self._ask()
            elif self.path == "/keep":
                self._keep()
            elif self.path == f"{API}chat/completions":
                self._complete()
            else:
                raise RequestRefused(
                    404, f"{self.path}: there is only /ask, /keep and {API}chat/completions"
                )
        except RequestRefused as refused:
            self._refuse(refused)
        except (ConnectionError, TimeoutError):  # the page was closed, or "stop" was pressed
            self.close_connection = True
        except Exception as error:
            if self.has_begun:
                raise
            self._refuse(RequestRefused(500, _sentence(error)))

    def _refuse(self, refused: RequestRefused) -> None:
        is_api = self.path.startswith(API)
        self.refuse(refused, completions.error(refused) if is_api else {"error": str(refused)})

    # -- the page's ---------------------------------------------------------------------------

    def _ask(self) -> None:
        limits = self.server.limits
        body = self.body(page.most_bytes(limits), page.too_long(limits))
        asked, tuned = page.question_in(body, limits)
        with self.server.admission.turn():
            self.begin_parts("application/x-ndjson; charset=utf-8")
            try:
                given = self.server.first.stream(asked, tuned=tuned, is_ended=self._is_over)
                with closing(given) as pieces:
                    for piece in pieces:
                        self._line({"text": piece})
                self._line({"done": True})
            except ConnectionError:
                raise
            except Exception as error:  # the page shows it: nothing else would
                self._line({"error": _sentence(error)})
            self.end_parts()

    def _keep(self) -> None:
        limits = self.server.limits
        body = self.body(page.most_bytes(limits), page.too_long(limits))
        said, question, answer = page.kept_in(body, limits)
        with self.server.admission.turn():
            try:
                self.server.ratings.keep(said, question, answer)
            except JobError as error:
                raise RequestRefused(500, _sentence(error)) from None
        self.send_json(200, {"kept": True})

    def _line(self, record: Any) -> None:
        self.send_part(json.dumps(record).encode() + b"\n")

    def _is_over(self) -> bool:
        return self.server.ending.is_set() or self.is_gone()

    # -- the API's ----------------------------------------------------------------------------

    def _models(self) -> Any:
        name = self.path.removeprefix(f"{API}models").removeprefix("/")
        if not self.path.startswith(f"{API}models") or name not in {"", *self.server.models}:
            raise RequestRefused(
                404, f"{self.path}: {API}models has what is here", code="model_not_found"
            )
        known = [completions.model(each, self.server.started) for each in self.server.models]
        if name:
            return next(record for record in known if record["id"] == name)
        return {"object": "list", "data": known}

    def _complete(self) -> None:
        limits = self.server.limits
        body = self.body(completions.most_bytes(limits), completions.too_long(limits))
        asked = completions.request_in(body, self.server.models, limits)
        model, tuned = self.server.models[asked.model]
        with self.server.admission.turn():
            try:
                answer = model.answer(asked.turns, asked.how, tuned=tuned, is_ended=self._is_over)
            except DataError as error:
                raise RequestRefused(400, str(error), code="context_length_exceeded") from None
            if asked.streams:
                self._complete_in_parts(asked, answer)
            else:
                self._complete_whole(asked, answer)

    def _complete_whole(self, asked: completions.Request, answer: StreamedAnswer) -> None:
        try:
            with closing(answer.pieces()) as pieces:
                text = "".join(pieces)
        except Exception as error:
            raise RequestRefused(500, _sentence(error)) from error
        if self.is_gone():
            raise ConnectionAbortedError
        self.send_json(200, completions.whole(asked, text, answer))

    def _complete_in_parts(self, asked: completions.Request, answer: StreamedAnswer) -> None:
        self.begin_parts("text/event-stream")
        opening = {"role": "assistant", "content": ""}
        try:
            self.send_part(completions.event(completions.part(asked, opening)))
            with closing(answer.pieces()) as pieces:
                for piece in pieces:
                    delta = {"content": piece}
                    self.send_part(completions.event(completions.part(asked, delta)))
            self.send_part(completions.event(completions.part(asked, {}, answer)))
            if asked.counts:
                self.send_part(completions.event(completions.count(asked, answer)))
        except ConnectionError:
            raise
        except Exception as error:  # the status has been sent
            refused = RequestRefused(500, _sentence(error))
            self.send_part(completions.event(completions.error(refused)))
        self.send_part(completions.LAST_EVENT)
        self.end_parts()


def _sentence(error: Exception) -> str:
    return redact(str(error) if isinstance(error, JobError) else f"unexpected: {error!r}")


def names_of(adapters: Sequence[str]) -> dict[str, str]:
    """Where each is, by its name: the one before a `=`, else the last part of where it is. Raises
    SettingsError for two of one name."""
    found: dict[str, str] = {}
    for given in adapters:
        name, named, where = given.partition("=")
        if not named or not re.fullmatch(r"[\w.-]+", name):
            name, where = slug(given.rstrip("/").removesuffix("/adapter")), given
        if name in found:
            raise SettingsError(f"--adapter: two are called {name}; write NAME={where}")
        found[name] = where
    return found


def serve(
    models: Mapping[str, ChatModel], port: int, *, compare: bool = False, key: str = ""
) -> None:
    """Answer in the browser and by the API until a signal. Raises SettingsError when the port is
    taken."""
    try:
        server = Server(models, port, compare=compare, key=key)
    except (OSError, OverflowError) as error:
        raise SettingsError(f"--port {port}: {error}; name another one") from None
    address = f"http://localhost:{server.server_port}"
    click.echo(f"{address} answers, and {address}/v1 as OpenAI's API does; Ctrl-C ends it")
    if (said := caution(server.first.warnings)) is not None:
        click.secho(for_terminal(said), bold=True)
    kept = f"answers that you keep on the page go to {server.ratings.path}"
    click.echo(f"{kept}: add that to your data")
    try:
        with server:
            server.serve_forever()
    except Stopped:
        server.finish()
