"""Files that are damaged, disks that are full or read-only."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from soaking.harness import Soak

DAMAGE = ("missing", "empty", "half", "flipped")


def damage(soak: Soak, count: int) -> None:
    """Damage each file of a stopped run, on disk and in the output, then start it again."""
    with soak.place() as origin:
        origin.attempt(kill_before=soak.operations * 2 // 3)
        cases = [(name, how) for name in origin.files() for how in DAMAGE]
        soak.random.shuffle(cases)

        def one(case: tuple[str, str]) -> None:
            name, how = case
            with soak.place() as place:
                place.copy(origin)
                place.damage(name, how)
                code = place.attempt()
                soak.tally.ended[f"exit {code}"] += 1
                same = code == 0 and place.weights() == soak.expected
                loud = code not in (0, 98) and not place.published()
                soak.tally.must(same or loud, f"{name} {how}: exit {code}: {place.said()}")

        soak.each(cases[: count or None], one)


def disks(soak: Soak, count: int) -> None:
    """Disks of many sizes for scratch and output, then read-only: the right code, and on after."""

    def one(number: int) -> None:
        size_kib = 8 + round(2 ** (number / count * 12))
        for name in ("scratch",) if soak.bucket_name else ("scratch", "out"):
            with soak.place() as place, mounted(place.folder / name, size_kib) as remount:
                what = f"{name} of {size_kib} KiB"
                code = place.attempt()
                soak.tally.ended[f"{name}: exit {code}"] += 1
                said = code == 0 or (code == 1 and "make room" in place.said())
                soak.tally.must(said, f"{what}: exit {code}: {place.said()}")
                remount("size=64m,ro")
                code = place.attempt()
                said = code == 11 and f"/{name}" in place.said()
                soak.tally.must(said, f"{what}, read-only: exit {code}: {place.said()}")
                remount("rw")
                soak.finish(place, f"after {what}")

    soak.each(range(count), one)


@contextlib.contextmanager
def mounted(disk: Path, size_kib: int) -> Iterator[Callable[[str], None]]:
    """A new disk at `disk`; gives what mounts it with other options."""

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options, str(disk)], check=True)

    disk.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs")
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        # Lazily: of a soak that was stopped, something may still be open there.
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
