"""QLoRA fine-tuning as one job: text in, adapter out."""

import time

STARTED = time.monotonic()  # of this process, or nearly
__version__ = "0.1.0"
