"""A thread notices that a worker is lost, whatever the others do at that moment."""

import pytest
from support.worker_processes import run_program

# The second of two ends as it is told; the first prints whether it was lost.
NEIGHBOURS = """
import os, sys
import torch.distributed as dist
from trainer.distributed import peer_watchdog

dist.init_process_group("gloo")
watchdog = peer_watchdog.PeerWatchdog(dist.get_rank(), 2)
if dist.get_rank() == 0:
    watchdog.join(120)
    print(watchdog.peer_lost)
elif sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
else:
    watchdog.announce_exit(getattr(peer_watchdog, sys.argv[1]))
    watchdog._sent.wait()
"""


@pytest.mark.parametrize(("end", "lost"), [("killed", True), ("FAILED", True), ("DONE", False)])
def test_a_neighbour_that_is_killed_or_fails_is_lost_and_one_that_is_through_is_not(
    end: str, lost: bool
) -> None:
    """What it does about it then needs two GPUs: test_cuda.py."""
    assert run_program(NEIGHBOURS, 2, end)[0].lines == [str(lost)]
