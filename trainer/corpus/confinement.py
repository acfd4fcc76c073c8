"""What the kernel forbids a process that reads strangers' files, for good: Landlock and seccomp.

Both are in Linux and need no rights. What is forbidden: opening any file but those that Python and
its libraries consist of, writing, the network, other programs, and all that reaches other
processes. What was opened before stays open. By `ctypes`, for there is no kept library of both
(decision 0006); numbers and structures are those of the kernel's headers.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_MOST_OPEN = 64
_libc = ctypes.CDLL(None, use_errno=True)

# prctl
_SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 4, 22, 38
# Landlock; the three calls have the same numbers on every processor
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = ((5, 16), (3, 15), (2, 14), (1, 13))  # (from this version on, so many)
_TCP, _OTHERS_SOCKETS_AND_SIGNALS = 3, 3
# What belongs to the libraries and lies elsewhere: theirs in C, fonts of PDFs, time zones.
_OF_THE_SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/usr/share/fonts", "/usr/share/zoneinfo"),
)
# BPF
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _PROCESSOR, _FIRST_ARGUMENT = 0, 4, 16  # where these stand in seccomp_data
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD = 0x10000
_X32 = 0x40000000  # the same calls by other numbers

# (x86-64, AArch64); -1 where a processor has no such call
_PROCESSORS = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _CLONE3, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (234, 131), (302, 261)
_FORBIDDEN = (
    # socket socketpair connect bind listen accept accept4
    *((41, 198), (53, 199), (42, 203), (49, 200), (50, 201), (43, 202), (288, 242)),
    # execve execveat fork vfork unshare setns
    *((59, 221), (322, 281), (57, -1), (58, -1), (272, 97), (308, 268)),
    # ptrace process_vm_readv process_vm_writev process_madvise pidfd_open pidfd_getfd kcmp
    *((101, 117), (310, 270), (311, 271), (440, 440), (434, 434), (438, 438), (312, 272)),
    # kill tkill pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo setpriority
    *((62, 129), (200, 130), (424, 424), (129, 138), (297, 240), (141, 140)),
    # shmget shmat msgget msgsnd msgrcv semget semop semtimedop mq_open memfd_create
    *((29, 194), (30, 196), (68, 186), (69, 189), (70, 188), (64, 190), (65, 193), (220, 192)),
    *((240, 180), (319, 279)),
    # chmod fchmod fchmodat chown fchown lchown fchownat utime utimes futimesat utimensat
    *((90, -1), (91, 52), (268, 53), (92, -1), (93, 55), (94, -1), (260, 54), (132, -1)),
    *((235, -1), (261, -1), (280, 88)),
    # setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr mknod mknodat
    *((188, 5), (189, 6), (190, 7), (197, 14), (198, 15), (199, 16), (133, -1), (259, 33)),
    # mount umount2 pivot_root chroot mount_setattr move_mount open_tree fsopen fsmount fsconfig
    *((165, 40), (166, 39), (155, 41), (161, 51), (442, 442), (429, 429), (428, 428)),
    *((430, 430), (432, 432), (431, 431)),
    # io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd
    *((425, 425), (426, 426), (427, 427), (321, 280), (298, 241), (323, 282)),
    # keyctl add_key request_key name_to_handle_at open_by_handle_at fanotify_init
    *((250, 219), (248, 217), (249, 218), (303, 264), (304, 265), (300, 262)),
    # init_module finit_module delete_module kexec_load kexec_file_load quotactl acct swapon swapoff
    *((175, 105), (313, 273), (176, 106), (246, 104), (320, 294), (179, 60), (163, 89)),
    *((167, 224), (168, 225)),
    # reboot syslog settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname
    *((169, 142), (103, 116), (164, 170), (227, 112), (305, 266), (159, 171), (170, 161)),
    (171, 162),
)


def limit(memory_bytes: int) -> None:
    """No more memory than this, no core files, no writing of files, and few open ones."""
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MOST_OPEN),
    ):
        with suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(kind, (most, most))


def confine() -> list[str]:
    """Confine this process for good; returns what the kernel could not forbid, in words."""
    if sys.platform != "linux":
        return ["anything: that needs Linux"]
    _libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)  # no debugger, no core; /proc shows others nothing
    if _libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return ["anything: new privileges cannot be refused"]
    return [*_landlock(_readable()), *_seccomp()]


def _readable() -> Iterator[Path]:
    """What Python imports from; of the folder that ours lies in, where it is no package's, ours."""
    code = Path(__file__).resolve().parent.parent
    yield code
    for name in (*sys.path, *_OF_THE_SYSTEM):
        path = Path(name).resolve()
        if path.exists() and (path != code.parent or path.name.endswith("-packages")):
            yield path


def _landlock(readable: Iterable[Path]) -> list[str]:
    version = _libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return ["reading and writing other files (no Landlock)"]
    rights = next((1 << count) - 1 for since, count in _FILE_RIGHTS if version >= since)
    handled = struct.pack(
        "QQQ", rights, _TCP * (version >= 4), _OTHERS_SOCKETS_AND_SIGNALS * (version >= 6)
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8  # older ones know no more fields
    ruleset = _libc.syscall(_CREATE_RULESET, handled, size, 0)
    for path in readable:
        allowed = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed, opened), 0)
        os.close(opened)
    failed = _libc.syscall(_RESTRICT_SELF, ruleset, 0)
    if ruleset < 0 or failed:
        return ["reading and writing other files (Landlock refuses)"]
    os.close(ruleset)
    return []


def _seccomp() -> list[str]:
    if platform.machine() not in _PROCESSORS:
        return [f"network, programs, other processes (no filter for {platform.machine()})"]
    program = b"".join(_filter(*_PROCESSORS[platform.machine()]))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    if _libc.prctl(_SET_SECCOMP, 2, header, 0, 0):
        return ["network, programs, other processes (seccomp refuses)"]
    return []


def _filter(column: int, processor: int) -> Iterator[bytes]:
    """Instructions: each forbidden call is an error, and of some only with certain arguments."""
    yield _instruction(_LOAD, _PROCESSOR)
    yield _instruction(_EQUAL, processor, 1, 0)
    yield _instruction(_RETURN, _KILL)
    yield _instruction(_LOAD, _NUMBER)
    yield _instruction(_AT_LEAST, _X32, 0, 1)
    yield _instruction(_RETURN, _ERROR | _EPERM)
    for numbers in _FORBIDDEN:
        if numbers[column] >= 0:
            yield _instruction(_EQUAL, numbers[column], 0, 1)
            yield _instruction(_RETURN, _ERROR | _EPERM)
    # Threads are made by clone where clone3, whose flags lie in memory, is not there.
    yield _instruction(_EQUAL, _CLONE3[column], 0, 1)
    yield _instruction(_RETURN, _ERROR | _ENOSYS)
    yield from _unless(_CLONE[column], _ANY_BIT, _CLONE_THREAD)
    yield from _unless(_TGKILL[column], _EQUAL, os.getpid())
    yield from _unless(_PRLIMIT[column], _EQUAL, 0)
    yield _instruction(_RETURN, _ALLOW)


def _unless(number: int, comparison: int, value: int) -> Iterator[bytes]:
    """This call is an error but where its first argument compares so."""
    yield _instruction(_EQUAL, number, 0, 4)
    yield _instruction(_LOAD, _FIRST_ARGUMENT)
    yield _instruction(comparison, value, 0, 1)
    yield _instruction(_RETURN, _ALLOW)
    yield _instruction(_RETURN, _ERROR | _EPERM)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


if __name__ == "__main__":  # what it comes to on this machine, for somebody who cannot be confined
    print(*confine(), sep="\n", end="")
