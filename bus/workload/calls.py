"""System calls that a confined process may not make: a seccomp filter (seccomp(2)), as classic BPF.

What namespaces and Landlock leave in reach: sockets of the file system and of the host of a virtual machine, other
programs, other processes' memory, keyrings, and parts of the kernel that a function has no use for. New processes are
refused, threads are not. A call that is refused fails with EPERM; one of another architecture ends the process.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import Final

from bus.codes import Code
from bus.errors import Refused

_NAMES: Final = (
    *("socket", "socketpair", "connect", "execve", "execveat", "memfd_create", "ptrace"),
    *("process_vm_readv", "process_vm_writev", "unshare", "setns", "mount", "umount2", "pivot_root", "chroot"),
    *("add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup"),
    *("open_by_handle_at", "prctl", "seccomp", "kill", "tkill", "tgkill", "pidfd_open", "pidfd_getfd", "clone"),
)
_NUMBERS: Final = {
    "x86_64": (
        0xC000003E,
        *((41, 53, 42, 59, 322, 319, 101), (310, 311, 272, 308, 165, 166, 155, 161)),
        *((248, 249, 250, 321, 298, 323, 425), (304, 157, 317, 62, 200, 234, 434, 438, 56)),
    ),
    "aarch64": (
        0xC00000B7,
        *((198, 199, 203, 221, 281, 279, 117), (270, 271, 97, 268, 40, 39, 41, 51)),
        *((217, 218, 219, 280, 241, 282, 425), (265, 167, 277, 129, 130, 131, 434, 438, 220)),
    ),
}
"""The architecture's audit number, and the calls above in their order (Linux, asm/unistd.h)."""
_OLD: Final = {"x86_64": (57, 58), "aarch64": ()}
"""fork and vfork."""
_CLONE3: Final = 435
_CLONE_THREAD: Final = 0x10000
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _SET, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_PR_SET_SECCOMP, _FILTER = 22, 2
_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def program(machine: str) -> bytes:
    """The filter for ``machine``. Raises Refused (settings) for one whose calls are not known."""
    if machine not in _NUMBERS:
        known = ", ".join(sorted(_NUMBERS))
        raise Refused(f"sandbox: expected {known}, found {machine}", code=Code.SETTINGS)
    audit, *groups = _NUMBERS[machine]
    numbers = dict(zip(_NAMES, (number for group in groups for number in group), strict=True))
    clone = numbers.pop("clone")
    refused = sorted({*numbers.values(), *_OLD[machine]})
    # seccomp_data: nr at 0, arch at 4, the first argument's low half at 16.
    code = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, 0x40000000),  # the x32 calls
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 1, _CLONE3),  # its flags are out of sight: libraries take clone then
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 2, clone),
        (_LOAD, 0, 0, 16),
        (_SET, len(refused), len(refused) + 1, _CLONE_THREAD),
        *((_EQUAL, len(refused) - place, 0, number) for place, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def restrict() -> None:
    """Filter this thread's calls from now on. Raises Refused (settings) where the kernel does not."""
    code = program(platform.machine())
    held = ctypes.create_string_buffer(code, len(code))
    told = _Program(len(code) // 8, ctypes.addressof(held))
    if _libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(told), 0, 0):
        raise Refused("sandbox: this kernel filters no system calls", code=Code.SETTINGS)
