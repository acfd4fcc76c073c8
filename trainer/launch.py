"""torchrun whose exit code is the job's.

    python -m trainer.launch --nproc-per-node=gpu entrypoint.py

torchrun itself ends with 1 whatever a worker failed with, and then nobody knows whether starting
again helps.
"""

import sys

from trainer.errors import Interrupted, SettingsError


def main(arguments: list[str]) -> int:
    """Run torchrun with `arguments`; the exit code of the worker that failed first."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException:  # it has passed the signal on and waited
        return Interrupted.exit_code
    except ValueError as error:  # of its own arguments: no GPU, say, where all are asked for
        print(f"error: torchrun: {error} Correct what it is given.", file=sys.stderr)
        return SettingsError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
