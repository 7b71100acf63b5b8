"""The sandbox: runs a model's programs so that they can neither cheat nor harm, some hundreds a second on a core.

A judge (`judging`) drives a zygote (`host`, `inside.zygote`), which forks one confined child for each program
(`inside.child`). The child gets calls and gives results, as plain data (`inside.codec`); expected values, tests and
verdict stay with the judge, or, for test scripts, in a second sandbox (`inside.script`). Layers, from the inside out:

    limits        processor time, address space, file size, descriptors, standard output, message size and depth, and
                  the clock, which the judge holds; SIGKILL for all that a run leaves. Always.
    seccomp       a list of allowed system calls: no sockets of any family, no new processes, no programs executed, no
                  signals to others, no ptrace, mounts, keyrings, perf, bpf, io_uring, shared memory, changed modes
    landlock      files: the standard library and shared libraries to read, the run's own scratch folder to write,
                  nothing else; no TCP; no signals or abstract sockets out
    namespaces    user, pid, network, mount, IPC and UTS of the zygote's own; the scratch folder is a bounded tmpfs.
                  Where the machine allows it.
    user          a user number of its own, where the judge is root

The environment is empty. A run finds the scratch folder empty, and it is emptied after it. `layers()` says which of
these are in force on this machine, by trying to get around each; where one of the minimum (limits, seccomp, landlock)
is missing, nothing runs.

What is not covered:

- A fault of the kernel in a system call that is allowed. Use a virtual machine against an adversary who has one.
- Names and metadata. A program can ask whether a path exists, how large the file is and whose, the time of day, the
  kernel's version, the number of processors and the load. It can list what is installed beside the standard library.
- Side channels: timing, caches, the load that other runs see.
- Time within its limits: a program that takes all it may costs that much, twice.
- Threads are counted only under namespaces or a user of its own; else address space alone bounds them. Without
  namespaces the scratch folder is measured twenty times a second, and may outgrow its bound in between.
- A test script that evaluates what a candidate returns (`eval(f())`) lets it into the script's sandbox, where it could
  forge the report. So could a candidate in the shared process, the weaker mode that a task must ask for.
- A program that answers rightly by luck, or by a table of tests that it has been shown: keep tests hidden.
"""

from verifiers.sandbox.layers import Layer, layers

__all__ = ["Layer", "layers"]
