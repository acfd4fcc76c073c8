"""Runs that are killed, starved and damaged on purpose; every one must end the same or say why not.

    python tests/soak.py kills:200 operations signals:100

    kills         SIGKILL at random instants
    operations    SIGKILL before every file operation of a run, or before so many of them
    saves         the same in the save, push and retirement of one checkpoint, fsyncs included
    signals       SIGTERM in all phases, as PID 1 of a namespace, each fifth from the interpreter's
                  start on
    damage        every file of a stopped run: missing, empty, half, a bit flipped
    publishing    SIGKILL while publishing, with a reader polling
    races         two jobs, one run id; three of four pairs disagree
    phases        SIGTERM in each phase of a run on a larger corpus, of a merge and an export; on
                  the base that SOAK_BASE_MODEL names, if any
    freezes       one job is frozen while it publishes and another one takes its place
    disks         scratch and output disks of many sizes, and read-only ones
    server        the S3 server crashes, freezes, answers SlowDown
    faults        requests are truncated, reset, delayed, refused and left without an answer

`server` needs S3_SERVER, a command that takes start, crash, freeze, thaw and limit; `faults` needs
S3_FAULT_PROXY, which takes its port and the server's. With `--s3` data, checkpoints and results are
in a bucket (AWS_* name the server). The job's real code runs in processes forked from this one,
which has imported everything and computed nothing: an attempt then costs seconds less. As many
cases as there are cores run side by side. Exits with 1 if any run ended in a way it must not.

The scenarios and what they share are in `soaking/`.
"""

import argparse
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable

from soaking.harness import Soak, Tally
from soaking.killed import kills, operations, publishing, saves
from soaking.phased import phases
from soaking.processes import preload
from soaking.raced import freezes, races
from soaking.served import faults, server
from soaking.signalled import signals
from soaking.spoilt import damage, disks
from support.jobs import ROOT

SCENARIOS = (
    kills,
    operations,
    saves,
    signals,
    phases,
    damage,
    publishing,
    races,
    freezes,
    disks,
    server,
    faults,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="+", metavar="SCENARIO[:COUNT]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--s3", action="store_true")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=cores, help="cases side by side")
    chosen = parser.parse_args()
    known = {scenario.__name__: scenario for scenario in SCENARIOS}
    wanted = [scenario.partition(":")[::2] for scenario in chosen.scenarios]
    if unknown := [name for name, _ in wanted if name not in known]:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does it
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // chosen.jobs)))
    preload()
    faulthandler.enable()  # in each fork's log
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and say what was counted until then
    soak = Soak(chosen.seed, chosen.s3, chosen.jobs)
    try:
        wrong = sum(run(soak, known[name], int(count or 0)) for name, count in wanted)
    finally:
        soak.close()
    return 1 if wrong else 0


def run(soak: Soak, scenario: Callable[[Soak, int], None], count: int) -> int:
    """Say how the cases of one scenario ended; how many went wrong."""
    soak.tally = Tally()
    started = time.monotonic()
    try:
        scenario(soak, count)
    finally:  # also when it was stopped
        ended = ", ".join(f"{what} {n}" for what, n in sorted(soak.tally.ended.items()))
        where = f"{'s3' if soak.bucket_name else 'local'}, seed {soak.seed}"
        seconds = time.monotonic() - started
        print(f"{scenario.__name__} ({where}): {ended} in {seconds:.0f} s", flush=True)
    return len(soak.tally.wrong)


if __name__ == "__main__":
    sys.exit(main())
