"""What a reader that a file has taken over tries, in a process that is confined as readers are."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.jobs import ROOT

from trainer.corpus.sandbox import unconfined

ATTACKER = """
import ctypes, json, os, socket, subprocess, sys, threading
from pathlib import Path
from trainer.corpus import confinement

folder, port, given = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
libc, parent = ctypes.CDLL(None, use_errno=True), os.getppid()
held = os.open(folder / "mine", os.O_RDONLY)

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def at(x86, arm):
    return x86 if os.uname().machine == "x86_64" else arm

ATTACKS = {
    "files": {
        "read": lambda: Path("/etc/passwd").read_bytes(),
        "read beside the code": lambda: Path("pyproject.toml").read_bytes(),
        "read beside the input": lambda: (folder / "mine").read_bytes(),
        "list": lambda: os.listdir("/"),
        "parent's environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "parent's memory": lambda: Path(f"/proc/{parent}/mem").open("rb"),
        "write": lambda: (folder / "new").write_bytes(b""),
        "write over": lambda: (folder / "mine").open("r+b"),
        "make a folder": lambda: (folder / "sub").mkdir(),
        "link": lambda: (folder / "link").symlink_to("/"),
        "rename": lambda: (folder / "mine").rename(folder / "other"),
        "delete": lambda: (folder / "mine").unlink(),
    },
    "processes": {
        "connect": lambda: socket.create_connection(("127.0.0.1", port), 5),
        "datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "local socket": lambda: socket.socket(socket.AF_UNIX),
        "program": lambda: os.execv("/bin/true", ["true"]),
        "program beside": lambda: subprocess.run(["/bin/true"]),
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "fork": lambda: os.fork() or os._exit(0),
        "signal": lambda: os.kill(parent, 0),
        "trace": lambda: call(at(101, 117), 16, parent, 0, 0),
        "parent's memory by a call": lambda: call(at(310, 270), parent, None, 0, None, 0, 0),
        "io_uring": lambda: call(425, 1, ctypes.create_string_buffer(120)),
        "namespace": lambda: call(at(272, 97), 0x10000000),
        "other words for a call": lambda: call(0x40000000 + at(41, 198), 2, 1, 0),
        "parent's limits": lambda: __import__("resource").prlimit(parent, 7),
        "mode of an open file": lambda: os.fchmod(held, 0o777),
        "pages of a file without a name": lambda: os.memfd_create("x"),
    },
}
lacks = confinement.confine()
found = {"lacks": lacks}
for kind, attacks in ATTACKS.items():
    for name, attack in attacks.items():
        try:
            attack()
            found[f"{kind}: {name}"] = "done"
        except PermissionError as error:
            found[f"{kind}: {name}"] = "refused"
        except Exception as error:
            found[f"{kind}: {name}"] = repr(error)
import wave  # no other module does
worker = threading.Thread(target=lambda: found.update(thread=os.read(given, 5).decode()))
worker.start()
worker.join()
found["status"] = "not dumpable" if not libc.prctl(3, 0, 0, 0, 0) else "dumpable"
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of each attack."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "mine").write_bytes(b"words of mine")
    with socket.create_server(("127.0.0.1", 0)) as server, (folder / "mine").open("rb") as given:
        port, file = server.getsockname()[1], given.fileno()
        ended = subprocess.run(
            [sys.executable, "-c", ATTACKER, str(folder), str(port), str(file)],
            cwd=ROOT,
            pass_fds=[file],
            capture_output=True,
            text=True,
            check=False,
        )
    assert not ended.stderr and [path.name for path in folder.iterdir()] == ["mine"]
    found: dict[str, str] = json.loads(ended.stdout)
    return found


def refusing(kind: str, of: Callable[[str], bool]) -> Callable[[dict[str, str]], None]:
    def test(found: dict[str, str]) -> None:
        if any(of(lack) for lack in found["lacks"]):
            pytest.skip(f"this kernel cannot: {'; '.join(found['lacks'])}")
        attacks = {name: end for name, end in found.items() if name.startswith(f"{kind}: ")}
        assert len(attacks) > 10
        assert {name: end for name, end in attacks.items() if end != "refused"} == {}

    return test


test_no_file_is_reached_but_what_was_given = refusing("files", lambda lack: "files" in lack)
test_no_process_program_or_network_is_reached = refusing("processes", lambda lack: "net" in lack)


def test_what_reading_needs_is_left(found: dict[str, str]) -> None:
    """Threads, modules that are imported late, and what was open before."""
    assert found["thread"] == "words"
    assert found["status"] == "not dumpable"


def test_what_the_kernel_refuses_is_said() -> None:
    """Landlock takes sixteen confinements of one process, one upon the other."""
    often = "from trainer.corpus.confinement import confine\nfor _ in range(17): found = confine()"
    command = [sys.executable, "-c", f"{often}\nprint(found)"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("['reading and writing other files (")


def test_a_process_that_is_not_confined_learns_what_would_be_lacking(
    found: dict[str, str],
) -> None:
    assert unconfined() == list(found["lacks"])
