"""A storage server that fails, and requests that are spoilt on the way to it."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from support.network import unused_port, wait_until_open

from soaking.harness import Soak
from soaking.place import Place


def server(soak: Soak, count: int) -> None:
    """The S3 server fails for some seconds while a run is under way, and comes back."""

    def control(*words: str) -> None:
        command = [os.environ["S3_SERVER"], *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    failures = (("crash", "start"), ("freeze", "thaw"), ("limit 60", "limit off"))
    for number in range(count):
        fail, mend = failures[number % len(failures)]
        with soak.place(STORAGE_RETRY_MINUTES="3") as place:
            child = place.start()
            time.sleep(soak.random.uniform(0, soak.duration_s))
            control(*fail.split())
            time.sleep(soak.random.uniform(1, 8))
            control(*mend.split())
            code = child.wait()
            soak.tally.ended[f"{fail.split()[0]}: exit {code}"] += 1
            soak.tally.must(code == 0, f"{fail}: exit {code}: {place.said()}")
            soak.finish(place, f"after {fail}")


def faults(soak: Soak, count: int) -> None:
    """A proxy spoils requests while a run is under way; some runs may retry, some may not."""

    def one(number: int) -> None:
        minutes = ("0", "0.05", "3")[number % 3]
        with (
            fault_proxy() as (endpoint, set_rules),
            soak.place(STORAGE_RETRY_MINUTES=minutes, RUN_ID="spoilt") as place,
        ):
            rules = [random_rule(soak.random, place) for _ in range(soak.random.randint(3, 8))]
            set_rules(rules)
            direct = place.variables.copy()
            place.variables["AWS_ENDPOINT_URL_S3"] = endpoint
            code = place.start(shorten_timeouts).wait()
            place.variables = direct
            soak.tally.ended[f"retried for {minutes} min: exit {code}"] += 1
            right = code == 0 or (code == 12 and minutes != "3")
            soak.tally.must(right, f"exit {code}: {place.said()} with {rules}")
            if soak.random.random() < 0.5:  # as on a fresh node
                shutil.rmtree(place.folder / "scratch", ignore_errors=True)
            soak.finish(place, f"after {rules}")

    soak.each(range(count), one)


def random_rule(random: random.Random, place: Place) -> dict[str, Any]:
    """Spoil some requests of one kind, mostly those of checkpoints."""
    objects = f"/{place.bucket_name}/{place.prefix}"
    checkpoints = f"{objects}spoilt/checkpoints/"
    match = random.choice(
        [f"PUT {checkpoints}"] * 3
        + [f"{method} {objects}" for method in ("PUT", "GET", "DELETE")]
        + [f"GET /{place.bucket_name}?"]
    )
    limits = random.choice(
        (
            {"kind": "slowdown"},
            {"kind": "latency", "s": 0.3},
            {"kind": "hang", "s": 3},
            {"kind": "reset_req", "after": random.choice((1, 100, 20_000))},
            {"kind": "truncate", "after": random.choice((1, 100))},
        )
    )
    return {"match": match, "n": random.randint(1, 6), **limits}


def shorten_timeouts() -> None:
    """So that a request without an answer costs one second."""
    from trainer.storage.s3 import connection

    connection.READ_TIMEOUT_S = 1


@contextlib.contextmanager
def fault_proxy() -> Iterator[tuple[str, Callable[[list[dict[str, Any]]], None]]]:
    """A proxy before the server: its endpoint, and what sets its rules."""
    upstream = urlsplit(os.environ["AWS_ENDPOINT_URL_S3"]).port
    port = unused_port()
    endpoint = f"http://localhost:{port}"

    def set_rules(rules: list[dict[str, Any]]) -> None:
        urllib.request.urlopen(endpoint + "/_faults", data=json.dumps(rules).encode()).close()

    command = [sys.executable, os.environ["S3_FAULT_PROXY"], str(port), str(upstream)]
    process = subprocess.Popen(command)
    try:
        wait_until_open(port)
        yield endpoint, set_rules
    finally:
        process.kill()
        process.wait()
