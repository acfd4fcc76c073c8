"""The base, loaded by a thread while its documents are read and tokenised: the one waits for disk,
network and device, the other for processors and a child process."""

import threading
from typing import TYPE_CHECKING, Any

from trainer.models.base_model import Base
from trainer.models.load import load_base
from trainer.monitoring.counting import in_silence, waiting
from trainer.planner.decoding_plan import hosted_to_answer
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings

if TYPE_CHECKING:
    from trainer.models.frozen_base import WholeBase


class LoadAhead:
    """A base that this worker will hold whole, as far as can be told before the data is known."""

    def __init__(
        self, base: Base, settings: Settings, precision: Precision, device: Device, workers: int
    ) -> None:
        """Not yet where several workers load together, or parts may have to stay elsewhere."""
        self._load = (base, settings, precision, device)
        self._loaded: Any = None
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        if workers == 1 and not (device.kind == "cuda" and hosted_to_answer(base.shape(), device)):
            # A daemon: whoever ends the process for another reason does not wait for it.
            self._thread = threading.Thread(target=self._run, name="base", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        from trainer.models.frozen_base import WholeBase

        try:
            with in_silence():  # the other thread says what goes on
                self._loaded = load_base(*self._load, WholeBase())
        except Exception as error:
            self._failure = error

    def take(self, frozen: "WholeBase") -> Any:
        """As `load_base` for a base that is held as `frozen` says, which is known now. Raises what
        that raises."""
        from trainer.models.frozen_base import WholeBase

        if self._thread is not None:
            with waiting(f"loading {self._load[0].name}"):
                self._thread.join()
        if self._thread is None or type(frozen) is not WholeBase:
            self._loaded = self._failure = None  # before there is room for another
            return load_base(*self._load, frozen)
        if self._failure is not None:
            raise self._failure
        loaded, self._loaded = self._loaded, None
        return loaded
