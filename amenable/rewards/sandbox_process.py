"""A program and its tests in a process that can do little else: run as a script by sandbox.py, never imported there.

    python -I sandbox_process.py PROGRAM TESTS RESULT SECONDS MEMORY

PROGRAM: a file; TESTS, RESULT: file descriptors. TESTS holds a key and a list of programs, and is read only once the
program has run; RESULT gets the protections first, and then the key with the number of tests that passed. A program
that ends the process by itself has not passed.

Limits: of the processor's seconds, address space, file sizes, open files. On Linux besides: no process, no program, no
socket, no signal to others (seccomp: any of these kills); nothing written outside the working directory (Landlock);
modes, owners and times of files stay; no capabilities. They keep a policy's accidents, and its cheats, from this
machine; for programs written to break out, run the whole command in a container or virtual machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys

# system calls that kill, by machine: new processes and programs, sockets, signals and access to other processes
CALLS = {
    "x86_64": "57 58 59 322 41 62 200 234 129 297 424 434 101 310 311 425 272 308",
    "aarch64": "221 281 198 129 130 131 138 240 424 434 117 270 271 425 97 268",
}
"""fork vfork execve execveat socket kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal pidfd_open
ptrace process_vm_readv process_vm_writev io_uring_setup unshare setns"""
METADATA = {
    "x86_64": "90 91 268 452 92 93 94 260 132 235 261 280 188 189 190 197 198 199",
    "aarch64": "52 53 452 54 55 88 5 6 7 14 15 16",
}
"""chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat setxattr ... fail"""
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}
PRLIMIT = {"x86_64": 302, "aarch64": 261}
CLONE3, CLONE_THREAD, X32 = 435, 0x10000, 0x40000000
LOAD, EQUAL, ALL_BITS, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
KILL, ALLOW, NOT_THERE, REFUSED = 0x80000000, 0x7FFF0000, 0x00050000 | 38, 0x00050000 | 1
OUT_OF_MEMORY = 99
"""exit code"""
WRITES = 0b1111111111110010 & ~0b1100
"""Landlock's rights that write: write_file, remove and make entries, refer, truncate, ioctl"""


def set_limits(seconds: float, memory: int) -> None:
    """Limit this process: seconds of the processor, MiB of address space."""
    import resource  # Windows, where the constants of this file are read, has none

    limits = [
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, memory * 2**20),
        (resource.RLIMIT_FSIZE, 16 * 2**20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ]
    for name, value in limits:
        hard = resource.getrlimit(name)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(name, (bound, bound))
        except (ValueError, OSError):
            continue


def forbid_processes() -> None:
    """Let this process start no other by its user's limit, which root does not have."""
    import resource

    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up root's rights over the machine, for good."""
    libc.capset(struct.pack("II", 0x20080522, 0), bytes(24))


def confine_writes(libc: ctypes.CDLL) -> bool:
    """Let nothing be written outside the working directory. False where the system has no Landlock."""
    version = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = WRITES & ((1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1)
    ruleset = libc.syscall(444, struct.pack("Q", rights), ctypes.c_size_t(8), 0)
    folder = os.open(".", os.O_PATH | os.O_DIRECTORY)
    rule = struct.pack("=Qi", rights, folder)
    confined = ruleset >= 0 and libc.syscall(445, ruleset, 1, rule, 0) == 0 and libc.syscall(446, ruleset, 0) == 0
    os.close(folder)
    if ruleset >= 0:
        os.close(ruleset)
    return confined


def filter_calls(libc: ctypes.CDLL) -> bool:
    """Have the system kill this process at a call that starts, reaches or signals another. False where it cannot."""
    machine = platform.machine()
    if machine not in CALLS:
        return False
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, AUDIT[machine]), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    program += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for number in CALLS[machine].split():
        program += [(EQUAL, 0, 1, int(number)), (RETURN, 0, 0, KILL)]
    for number in METADATA[machine].split():
        program += [(EQUAL, 0, 1, int(number)), (RETURN, 0, 0, REFUSED)]
    # the C library takes clone where clone3, whose flags a filter cannot see, is not there
    program += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, NOT_THERE)]
    program += [(EQUAL, 0, 4, CLONE[machine]), (LOAD, 0, 0, 16), (ALL_BITS, 1, 0, CLONE_THREAD)]
    program += [(RETURN, 0, 0, KILL), (RETURN, 0, 0, ALLOW)]
    program += [(EQUAL, 0, 4, PRLIMIT[machine]), (LOAD, 0, 0, 16), (EQUAL, 1, 0, 0)]
    program += [(RETURN, 0, 0, REFUSED), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    filters = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    return libc.prctl(22, 2, ctypes.c_char_p(filters), 0, 0) == 0


def protect(seconds: float, memory: int) -> list[str]:
    """Protect the machine from this process and return the names of the protections that hold."""
    set_limits(seconds, memory)
    if sys.platform != "linux":
        forbid_processes()
        return ["limits"]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges
    drop_capabilities(libc)
    writes, calls = confine_writes(libc), filter_calls(libc)
    if not calls:
        forbid_processes()
    return ["limits", *(["landlock"] if writes else []), *(["seccomp"] if calls else [])]


def run_tests(source: str, tests_file: int) -> tuple[str, int]:
    """Run a program and then its tests, each in a copy of its names. Returns the tests' key, and how many passed."""
    names: dict[str, object] = {"__name__": "program"}
    exec(compile(source, "program.py", "exec"), names)
    with os.fdopen(tests_file, encoding="utf-8") as file:
        key, tests = json.load(file)
    passed = 0
    for test in tests:
        try:
            exec(compile(test, "test.py", "exec"), dict(names))
            passed += 1
        except MemoryError:
            raise
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return key, passed


def main() -> None:
    """Protect, run, and write the result."""
    program, tests, result, seconds, memory = sys.argv[1:]
    with open(program, encoding="utf-8") as file:
        source = file.read()
    sys.argv = [""]
    os.write(int(result), (" ".join(protect(float(seconds), int(memory))) + "\n").encode())
    try:
        key, passed = run_tests(source, int(tests))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    os.write(int(result), f"{key} {passed}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
