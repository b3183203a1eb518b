"""Confines this process before foreign code runs in it: Linux namespaces, Landlock and limits; no way back.

Afterwards it has no network but an empty namespace, sees no other process and starts none, can write nothing and read
only what ``readable`` names, and may not gain privileges. What it can still learn is whether a path is there and how
large it is. Each step that the kernel does not know is a refusal, never left out:
(1) limits: memory, open files, no file and no core is written; (2) namespaces: user, network, processes, IPC, names;
(3) a process that only waits is the first of its namespace and ends with its parent: all the others end with it;
(4) no privileges, none to come, no dump; (5) Landlock: files, and where the kernel has it TCP, signals and abstract
sockets beyond the sandbox; (6) system calls (``bus.workload.calls``).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bus.codes import Code
from bus.errors import Refused
from bus.workload import calls

_CLONE: Final = 0x10000000 | 0x40000000 | 0x20000000 | 0x08000000 | 0x04000000
"""CLONE_NEWUSER, NEWNET, NEWPID, NEWIPC, NEWUTS (sched.h)."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls of Landlock, the same on all architectures (landlock(7))."""
_READ: Final = 1 << 0 | 1 << 2 | 1 << 3
"""LANDLOCK_ACCESS_FS_EXECUTE, READ_FILE, READ_DIR."""
_READ_FILE: Final = 1 << 0 | 1 << 2
_FS_BY_ABI: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights over files each version knows; later ones know those of the last."""
_TCP: Final = 1 << 0 | 1 << 1
_SCOPES: Final = 1 << 0 | 1 << 1
_CAP_VERSION: Final = 0x20080522
MAX_OPEN: Final = 64
_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    """No capability, in each of the three sets (twice 32 bits)."""

    _fields_ = (("sets", ctypes.c_uint32 * 6),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _call(what: str, result: int) -> int:
    if result < 0:
        why = os.strerror(ctypes.get_errno())
        hint = "docs/tiers.md says what the kernel must have"
        raise Refused(f"sandbox: {what}: {why}", code=Code.SETTINGS, hint=hint)
    return result


def confine(readable: Iterable[Path], memory: int) -> None:
    """Confine this process, which must have one thread; returns in the sandbox. ``memory`` in bytes.

    Raises Refused (settings) where the kernel cannot. The process that calls it stays outside as the parent of the
    confined one, and ends as that does.
    """
    # 1. Limits.
    for limit, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, MAX_OPEN),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    # 2. Namespaces.
    _call("namespaces", _libc.unshare(_CLONE))
    # 3. The first process of the new namespace.
    _follow()
    _call("prctl", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    _follow()
    # 4. Privileges and dumps.
    _call("capset", _libc.capset(ctypes.byref(_CapHeader(_CAP_VERSION, 0)), ctypes.byref(_CapData())))
    _call("prctl", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _call("prctl", _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
    # 5. Files, TCP, signals.
    _landlock(readable)
    # 6. System calls.
    calls.restrict()


def _follow() -> None:
    """Go on in a child; the parent waits for it and ends as it does."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _landlock(readable: Iterable[Path]) -> None:
    abi = _call("Landlock", _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    rights = (1 << _FS_BY_ABI.get(abi, 16)) - 1
    rules = _Ruleset(rights, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = ctypes.c_size_t(8 if abi < 4 else 16 if abi < 6 else 24)
    made = _call("Landlock", _libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0))
    for path in readable:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # nothing is there to be read
        beneath = _Beneath(_READ if path.is_dir() else _READ_FILE, place)
        _call(f"Landlock: {path}", _libc.syscall(_ADD_RULE, made, 1, ctypes.byref(beneath), 0))
        os.close(place)
    _call("Landlock", _libc.syscall(_RESTRICT_SELF, made, 0))
    os.close(made)
