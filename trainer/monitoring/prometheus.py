"""What Prometheus can ask a run: `QLORA_METRICS_PORT` serves its figures while it lasts."""

import time
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Info, start_http_server

from trainer.errors import SettingsError
from trainer.settings import Settings

SILENCE_S = 10.0  # of whoever connects and asks nothing: each holds a thread
LABELS = ("base_model", "data_uri", "output_uri", "run_id")


class Metrics:
    """The figures of one run; one that is not known yet is absent, not zero.

    `with Metrics(settings) as metrics:` serves them, where a port was given.
    """

    def __init__(self, settings: Settings) -> None:
        self._port, self._address = settings.metrics_port, settings.metrics_address
        self._registry = CollectorRegistry()  # not the global one: a process may run several jobs
        self._gauges: dict[str, Gauge] = {}
        self._saved = 0.0
        record = settings.to_dict()  # without passwords
        run = Info("qlora_run", "which run this is", registry=self._registry)
        run.info({name: record[name] for name in LABELS})

    def __enter__(self) -> "Metrics":
        """Raises SettingsError when the port cannot be had."""
        self._server = None
        if self._port is not None:
            try:
                self._server, _ = start_http_server(
                    self._port, self._address, registry=self._registry
                )
                handler = self._server.RequestHandlerClass
                self._server.RequestHandlerClass = _given_up_in_silence(handler)
            except OSError as error:
                raise SettingsError(
                    f"QLORA_METRICS_PORT={self._port}: {error.strerror} "
                    f"(QLORA_METRICS_ADDRESS={self._address}); choose a free port, and an address "
                    "of this machine"
                ) from error
        return self

    def __exit__(self, *_: Any) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def start(self, done: int, steps: int) -> None:
        """Training begins with step `done`; a resumed checkpoint counts as saved now."""
        import torch

        self._gauge("qlora_step", "optimizer steps done").set(done)
        self._gauge("qlora_steps", "optimizer steps of the whole run").set(steps)
        self.saved()
        age = self._gauge("qlora_checkpoint_age_seconds", "since the last checkpoint or start")
        age.set_function(lambda: time.monotonic() - self._saved)
        if torch.cuda.is_available():
            used = self._gauge("qlora_gpu_memory_bytes", "reserved by torch on the GPU")
            used.set_function(torch.cuda.memory_reserved)

    def step(self, step: int, *, loss: float, tokens_per_s: float, seconds_left: float) -> None:
        """One optimizer step is done."""
        self._gauge("qlora_step", "optimizer steps done").set(step)
        self._gauge("qlora_loss", "training loss of the last step").set(loss)
        self._gauge("qlora_tokens_per_second", "of the last steps").set(tokens_per_s)
        self._gauge("qlora_seconds_left", "of training, at the speed so far").set(seconds_left)

    def saved(self) -> None:
        """A checkpoint is on disk."""
        self._saved = time.monotonic()

    def _gauge(self, name: str, meaning: str) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, meaning, registry=self._registry)
        return self._gauges[name]


def _given_up_in_silence(handler: Any) -> Any:
    class Handler(handler):  # type: ignore[misc]
        timeout = SILENCE_S

        def handle(self) -> None:
            with suppress(TimeoutError):
                super().handle()

    return Handler
