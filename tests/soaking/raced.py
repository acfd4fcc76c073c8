"""Two jobs with one run id, at once or one while the other is frozen."""

import signal
import time
from typing import Any

from soaking.harness import Soak
from soaking.place import WEIGHTS


def races(soak: Soak, count: int) -> None:
    """Two jobs with one run id, in scratch folders of their own.

    The second wants the same, or ends in other weights, or has another seed, with and without
    RESUME=must.
    """
    kinds = ("same", "weights", "seed", "must")
    changes = {"seed": {"SEED": "7"}, "must": {"SEED": "7", "RESUME": "must"}}

    def one(pair: int) -> None:
        kind = kinds[pair % len(kinds)]
        with soak.place(RUN_ID="shared") as place:
            one = place.start()
            time.sleep(soak.random.uniform(0, 1 if kind == "same" else 0.3))
            two = place.start(
                spoil_weights if kind == "weights" else lambda: None,
                SCRATCH_DIR=str(place.folder / "other"),
                **changes.get(kind, {}),
            )
            codes = (one.wait(), two.wait())
            soak.tally.ended[f"{kind}: exits {codes}"] += 1
            found = {run: files[WEIGHTS] for run, files in place.published().items()}
            ours = [run for run, weights in found.items() if weights == soak.expected]
            if kind == "weights":  # exactly one is published, and the other one says so
                right = codes == ((0, 14) if ours else (14, 0)) and list(found) == ["shared"]
                right &= "with other weights" in (place.folder / "log").read_text()
            else:
                right = codes == ((0, 2) if kind == "must" else (0, 0)) and len(ours) == 1
                right &= len(found) == (2 if kind == "seed" else 1)
            what = f"race {pair}, {kind}: exits {codes}, {[*found]}, ours {ours}"
            soak.tally.must(right, f"{what}: {place.said()}")

    soak.each(range(count), one)


def freezes(soak: Soak, count: int) -> None:
    """One job is frozen while it publishes, until another one has published; then it goes on.

    It may yet write over the object that was on its way, for some milliseconds of its publishing.
    """

    def one(number: int) -> None:
        with soak.place(RUN_ID="shared") as place:
            frozen = place.start()
            while not (begun := place.has("shared/publishing.json")) and not frozen.ended():
                time.sleep(0.001)
            time.sleep(soak.random.uniform(0, 0.06 if soak.bucket_name else 0.02))
            frozen.signal(signal.SIGSTOP)
            soak.tally.ended["in time"] += begun and not place.finished()
            code = place.start(SCRATCH_DIR=str(place.folder / "other")).wait()
            first = place.published()
            frozen.signal(signal.SIGCONT)
            codes = (code, frozen.wait())
            right = codes == (0, 0) and place.published() == first
            right &= place.weights() == soak.expected
            soak.tally.must(right, f"frozen {number}: exits {codes}: {place.said()}")

    soak.each(range(count), one)


def spoil_weights() -> None:
    """Let this process end in other weights, as another kind of device might."""
    from trainer.models import adapter_files

    save = adapter_files.save_adapter

    def spoil_and_save(model: Any, *arguments: Any) -> None:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data *= 1.001  # another adapter, as good as the first
        save(model, *arguments)

    adapter_files.save_adapter = spoil_and_save
