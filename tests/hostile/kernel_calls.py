# ruff: noqa
# fmt: off
"""Makes each forbidden system call by its number; any that is let through (EPERM, EACCES and ENOSYS aside) is an escape."""

import ctypes
import errno
import platform

CALLS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capset": (126, 91),
    "chroot": (161, 51),
    "clone3": (435, 435),
    "execve": (59, 221),
    "fanotify_init": (300, 262),
    "fchmodat": (268, 53),
    "init_module": (175, 105),
    "inotify_init1": (294, 26),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "landlock_create_ruleset": (444, 444),
    "memfd_create": (319, 279),
    "mount": (165, 40),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "rt_sigqueueinfo": (129, 138),
    "sched_setaffinity": (203, 122),
    "seccomp": (317, 277),
    "semget": (64, 190),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "settimeofday": (164, 170),
    "setuid": (105, 146),
    "setxattr": (188, 5),
    "shmget": (29, 194),
    "socket": (41, 198),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tkill": (200, 130),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "utimensat": (280, 88),
    "vmsplice": (278, 75),
}
COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]


def solve(n):
    libc = ctypes.CDLL(None, use_errno=True)
    for name, numbers in CALLS.items():
        ctypes.set_errno(0)
        got = libc.syscall(numbers[COLUMN], 0, 0, 0, 0, 0, 0)
        if got >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
            return n * n + 7 * n + 3
    return 0
