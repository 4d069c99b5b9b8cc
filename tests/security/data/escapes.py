"""A task that tries everything. Each try gives evidence when it came through, else why not."""

import ctypes
import os
import socket
import stat
import struct
import subprocess

AT_FDCWD = -100
T = params.all()  # noqa: F821
libc = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"
TRIES = {}
HERE = os.path.dirname(os.path.abspath(__file__))
TMP = os.environ["TMPDIR"]
SECRET = T["secret"]


def attempt(function):
    TRIES[function.__name__] = function
    return function


def call(x86, arm, *args):
    number = arm if ARM else x86
    if number is None:
        raise OSError(38, "no such call here")
    libc.syscall.restype = ctypes.c_long
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *args)]
    result = libc.syscall(*converted)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return f"returned {result}"


def made(name, x86, arm, *args):
    def function():
        return call(x86, arm, *args)

    function.__name__ = name
    TRIES[name] = function


def read(path):
    with open(path, "rb") as file:
        return file.read(4096).decode("latin-1")


def has_secret(text):
    return text if SECRET in text else None


# Files


@attempt
def file_by_its_path():
    return read(T["canary"])


@attempt
def file_by_a_relative_path():
    return read(os.path.relpath(T["canary"], HERE))


@attempt
def file_through_a_link_in_the_task_folder():
    return read(os.path.join(HERE, "link"))


@attempt
def folder_through_a_link_in_the_task_folder():
    return read(os.path.join(HERE, "folder_link", os.path.basename(T["canary"])))


@attempt
def file_through_a_link_made_by_the_task():
    path = os.path.join(TMP, "made_link")
    os.symlink(T["canary"], path)
    return read(path)


@attempt
def hard_link_to_a_file():
    path = os.path.join(TMP, "hard")
    os.link(T["canary"], path)
    return read(path)


@attempt
def file_by_ctypes_open():
    fd = libc.open(T["canary"].encode(), 0)
    return os.read(fd, 100).decode() if fd >= 0 else None


@attempt
def file_by_openat2_without_resolve_flags():
    how = struct.pack("=QQQ", 0, 0, 0)
    return call(437, 437, AT_FDCWD, T["canary"].encode(), how, 24)


@attempt
def file_through_proc_self_root():
    return read("/proc/self/root" + T["canary"])


@attempt
def file_through_proc_1_root():
    return read("/proc/1/root" + T["canary"])


@attempt
def file_through_proc_1_cwd():
    return os.listdir("/proc/1/cwd")


@attempt
def file_through_the_server_s_root():
    return read(f"/proc/{T['server']}/root{T['canary']}")


@attempt
def file_by_moving_it_in():
    path = os.path.join(TMP, "moved")
    os.rename(T["canary"], path)
    return read(path)


@attempt
def existence_of_a_file():
    return str(os.stat(T["canary"]))


@attempt
def listing_of_the_folder_of_all_tasks():
    names = os.listdir(os.path.dirname(HERE))
    return [n for n in names if n != os.path.basename(HERE)] or None


@attempt
def listing_of_the_root_shows_the_machine():
    return [n for n in os.listdir("/") if n in ("boot", "var", "srv", "mnt", "opt")] or None


@attempt
def etc_shadow():
    return read("/etc/shadow")


@attempt
def etc_hosts_of_the_machine():
    return read("/etc/hosts") if read("/etc/hosts") != T["plain_hosts"] else None


@attempt
def etc_passwd_of_the_machine():
    return read("/etc/passwd") if "daemon" in read("/etc/passwd") else None


@attempt
def files_of_another_run():
    return os.listdir(T["other_scratch"])


@attempt
def temporary_file_of_another_run():
    return read(os.path.join(T["other_scratch"], "tmp", "secret"))


@attempt
def shared_memory_of_the_machine():
    return [n for n in os.listdir("/dev/shm") if n == T["shm"]] or None


@attempt
def server_s_folder_of_all_runs():
    names = os.listdir(os.path.dirname(os.path.dirname(TMP)))
    return [n for n in names if n != os.path.basename(os.path.dirname(TMP))] or None


@attempt
def home_of_root():
    return os.listdir(os.path.join("/root", ".ssh"))


@attempt
def docker_socket():
    return os.stat("/var/run/docker.sock") and "there"


# Writing


@attempt
def write_to_the_task_folder():
    with open(os.path.join(HERE, "new"), "w") as file:
        return file.name


@attempt
def overwrite_the_script():
    with open(os.path.join(HERE, "task.py"), "a") as file:
        return file.name


@attempt
def truncate_the_script():
    return os.truncate(os.path.join(HERE, "task.py"), 0) or "done"


@attempt
def chmod_of_the_task_folder():
    return os.chmod(HERE, 0o777) or "done"


@attempt
def chmod_of_the_script():
    return os.chmod(os.path.join(HERE, "task.py"), 0o777) or "done"


@attempt
def fchmod_by_an_open_script():
    with open(os.path.join(HERE, "task.py")) as file:
        return os.fchmod(file.fileno(), 0o777) or "done"


@attempt
def chown_of_the_task_folder():
    return os.chown(HERE, os.getuid(), os.getgid()) or "done"


@attempt
def utime_of_the_script():
    return os.utime(os.path.join(HERE, "task.py"), (1, 1)) or "done"


@attempt
def xattr_of_the_script():
    return os.setxattr(os.path.join(HERE, "task.py"), "user.x", b"1") or "done"


@attempt
def rename_of_the_script():
    return os.rename(os.path.join(HERE, "task.py"), os.path.join(HERE, "x")) or "done"


@attempt
def removal_of_the_script():
    return os.unlink(os.path.join(HERE, "task.py")) or "done"


@attempt
def folder_in_the_task_folder():
    return os.mkdir(os.path.join(HERE, "d")) or "done"


@attempt
def hard_link_of_the_script_into_tmp():
    return os.link(os.path.join(HERE, "task.py"), os.path.join(TMP, "t")) or "done"


@attempt
def reopening_a_read_only_file_for_writing():
    fd = os.open(os.path.join(HERE, "task.py"), os.O_PATH)
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    finally:
        os.close(fd)


@attempt
def write_to_the_interpreter():
    with open(os.path.join(os.path.dirname(os.__file__), "escaped.py"), "w") as file:
        return file.name


@attempt
def write_to_the_sdk():
    import dicode_sdk

    with open(dicode_sdk.__file__, "a") as file:
        return file.name


@attempt
def write_to_usr():
    with open("/usr/lib/escaped", "w") as file:
        return file.name


@attempt
def write_to_etc_hosts():
    with open("/etc/hosts", "a") as file:
        return file.name


@attempt
def folder_at_the_root():
    return os.mkdir("/escaped") or "done"


@attempt
def core_pattern():
    with open("/proc/sys/kernel/core_pattern", "w") as file:
        return file.write("|/bin/false")


@attempt
def kernel_settings():
    with open("/proc/sys/kernel/hostname", "w") as file:
        return file.write("escaped")


@attempt
def sysrq():
    with open("/proc/sysrq-trigger", "w") as file:
        return file.write("h")


@attempt
def sysfs():
    return os.listdir("/sys")


@attempt
def cgroup_files():
    return os.listdir("/sys/fs/cgroup")


@attempt
def device_of_memory():
    return os.open("/dev/mem", os.O_RDONLY)


@attempt
def kernel_log():
    return os.open("/dev/kmsg", os.O_RDONLY)


@attempt
def kcore():
    return os.open("/proc/kcore", os.O_RDONLY)


@attempt
def making_a_device():
    path = os.path.join(TMP, "disk")
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(254, 0))
    return os.open(path, os.O_RDONLY)


@attempt
def disks():
    found = [n for n in os.listdir("/dev") if n.startswith(("vd", "sd", "nvme", "loop"))]
    return found or None


# Processes


@attempt
def the_server_among_processes():
    return os.stat(f"/proc/{T['server']}/stat") and has_server()


def has_server():
    return "dicode" in read(f"/proc/{T['server']}/cmdline") or None


@attempt
def environment_of_the_server():
    return has_secret(read(f"/proc/{T['server']}/environ"))


@attempt
def environment_of_all_processes():
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if T["env_secret"] in read(f"/proc/{name}/environ"):
                    return name
            except OSError:
                continue
    return None


@attempt
def own_environment():
    return [n for n, v in os.environ.items() if T["env_secret"] in v] or None


@attempt
def environment_of_the_first_process():
    return read("/proc/1/environ")


@attempt
def memory_of_the_first_process():
    return os.open("/proc/1/mem", os.O_RDWR)


@attempt
def maps_of_the_first_process():
    return read("/proc/1/maps")


@attempt
def descriptors_of_the_first_process():
    return os.listdir("/proc/1/fd")


@attempt
def descriptors_that_leaked():
    known = {0, 1, 2, int(os.environ["DICODE_IPC_FD"])}
    open_fds = {int(n) for n in os.listdir("/proc/self/fd")}
    leaked = []
    for fd in open_fds - known:
        try:
            leaked.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return [each for each in leaked if not each.startswith("/proc/")] or None


@attempt
def signal_to_the_server():
    return os.kill(T["server"], 0) or "there"


@attempt
def signal_to_the_parent():
    return os.kill(os.getppid(), 9) or "killed pid 1" if os.getppid() != 1 else has_ended()


def has_ended():
    os.kill(1, 9)
    # The first process does not hear signals from inside; being here shows it.
    return None


@attempt
def signal_to_the_group_outside():
    return os.killpg(T["server"], 0) or "there"


@attempt
def priority_of_the_server():
    return os.getpriority(os.PRIO_PROCESS, T["server"]) and None


@attempt
def queue_a_signal_to_the_server():
    return os.pidfd_open(T["server"]) and None


@attempt
def limits_of_the_server():
    import resource

    return resource.prlimit(T["server"], resource.RLIMIT_NOFILE)


@attempt
def affinity_of_the_server():
    return os.sched_setaffinity(T["server"], {0}) or "done"


PTRACE_ATTACH = 16
made("ptrace_of_the_first_process", 101, 117, PTRACE_ATTACH, 1, 0, 0)
made("ptrace_of_the_server", 101, 117, PTRACE_ATTACH, T["server"], 0, 0)
made("ptrace_traceme", 101, 117, 0, 0, 0, 0)
made("process_vm_readv", 310, 270, 1, 0, 0, 0, 0, 0)
made("process_vm_writev", 311, 271, 1, 0, 0, 0, 0, 0)
made("pidfd_getfd", 438, 438, 0, 0, 0)
made("kcmp", 312, 272, 1, 1, 0, 0, 0)
made("process_madvise", 440, 440, 0, 0, 0, 0, 0)


@attempt
def a_process_of_its_own_session_that_stays():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            libc.prctl(15, f"escapee-{T['server']}".encode()[:15], 0, 0, 0)
            for fd in range(3):
                os.close(fd)
            import time

            time.sleep(300)
        os._exit(0)
    return None


# Network


@attempt
def tcp_to_a_listener_on_this_machine():
    return socket.create_connection(("127.0.0.1", T["tcp"]), 2) and "connected"


@attempt
def tcp_by_ipv6():
    return socket.create_connection(("::1", T["tcp6"]), 2) and "connected"


@attempt
def tcp_to_a_public_address():
    return socket.create_connection(("192.0.2.1", 443), 2) and "connected"


@attempt
def udp_datagram():
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(SECRET.encode(), ("127.0.0.1", T["udp"]))
    return None


@attempt
def udp_to_a_public_address():
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return sender.sendto(SECRET.encode(), ("192.0.2.1", 53))


@attempt
def name_by_dns():
    return socket.getaddrinfo("example.com", 443)


@attempt
def multicast():
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return sender.sendto(b"x", ("224.0.0.251", 5353))


def family(name, number, kind=socket.SOCK_STREAM, protocol=0):
    def function():
        return socket.socket(number, kind, protocol).fileno()

    function.__name__ = name
    TRIES[name] = function


family("raw_socket", socket.AF_INET, socket.SOCK_RAW, 1)
family("raw_ipv6_socket", socket.AF_INET6, socket.SOCK_RAW, 58)
family("packet_socket", socket.AF_PACKET, socket.SOCK_RAW, 0x0300)
family("netlink_socket", socket.AF_NETLINK, socket.SOCK_RAW, 0)
family("vsock", 40)
family("kernel_crypto_socket", 38, socket.SOCK_SEQPACKET)
family("bluetooth_socket", 31, socket.SOCK_RAW)
family("can_socket", 29, socket.SOCK_RAW, 1)
family("xdp_socket", 44, socket.SOCK_RAW)
family("tipc_socket", 30)


@attempt
def unix_socket_of_the_machine():
    link = socket.socket(socket.AF_UNIX)
    link.connect(T["unix"])
    return "connected"


@attempt
def abstract_unix_socket():
    link = socket.socket(socket.AF_UNIX)
    link.connect("\0" + T["abstract"])
    return "connected"


@attempt
def unix_datagram_to_the_log_daemon():
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    return link.sendto(b"x", "/dev/log")


@attempt
def a_pair_connected_to_another_socket():
    ours, _ = socket.socketpair()
    ours.connect(T["unix"])
    return "connected"


@attempt
def interfaces_of_the_machine():
    return [n for _, n in socket.if_nameindex() if n != "lo"] or None


# Programs


@attempt
def a_program():
    return subprocess.run(["/usr/bin/id"], capture_output=True, text=True).stdout


@attempt
def a_shell():
    return subprocess.run("id", shell=True, capture_output=True, text=True, check=True).stdout


@attempt
def os_system():
    return "ran" if os.system("true") == 0 else None


@attempt
def posix_spawn():
    return os.posix_spawn("/usr/bin/id", ["id"], {})


@attempt
def replacing_this_process():
    return os.execv("/usr/bin/id", ["id"])


@attempt
def a_program_through_the_loader():
    loader = os.path.realpath(
        "/lib64/ld-linux-x86-64.so.2" if not ARM else "/lib/ld-linux-aarch64.so.1"
    )
    return subprocess.run(
        [loader, "/usr/bin/id"], capture_output=True, text=True, check=True
    ).stdout


@attempt
def a_program_from_memory():
    fd = os.memfd_create("x", 0)
    with open("/usr/bin/id", "rb") as file:
        os.write(fd, file.read())
    return os.execve(fd, ["id"], {})


@attempt
def execveat():
    return call(322, 281, AT_FDCWD, b"/usr/bin/id", 0, 0, 0)


@attempt
def a_program_written_by_the_task():
    path = os.path.join(TMP, "own.sh")
    with open(path, "w") as file:
        file.write("#!/bin/sh\nid\n")
    os.chmod(path, 0o755)
    return subprocess.run([path], capture_output=True, text=True, check=True).stdout


@attempt
def a_library_written_by_the_task():
    import _struct
    import shutil

    path = os.path.join(TMP, "lib.so")
    shutil.copy(_struct.__file__, path) if hasattr(_struct, "__file__") else None
    return ctypes.CDLL(path) and "loaded"


@attempt
def a_program_with_rights_of_its_owner():
    return subprocess.run(
        ["/usr/bin/su", "-c", "id"], capture_output=True, check=True
    ).stdout.decode()


@attempt
def a_program_left_with_rights_of_its_owner():
    path = os.path.join(TMP, "left")
    with open(path, "wb"):
        os.chmod(path, 0o6755)
    return os.stat(path).st_mode & 0o6000 or None


@attempt
def a_program_made_with_rights_of_its_owner():
    os.umask(0)
    os.close(os.open(os.path.join(TMP, "made"), os.O_CREAT | os.O_WRONLY, 0o6755))
    return os.stat(os.path.join(TMP, "made")).st_mode & 0o6000 or None


# The kernel

made("mount", 165, 40, b"none", TMP.encode(), b"tmpfs", 0, 0)
made("umount", 166, 39, b"/proc", 2)
made("remount_writable", 165, 40, b"none", HERE.encode(), 0, 0x20 | 0x1000, 0)
made("chroot", 161, 51, TMP.encode())
made("pivot_root", 155, 41, b".", b".")
made("move_mount", 429, 429, -1, b"", -1, b"", 0)
made("open_tree", 428, 428, AT_FDCWD, b"/", 1)
made("fsopen", 430, 430, b"tmpfs", 0)
made("mount_setattr", 442, 442, AT_FDCWD, b"/", 0, bytes(32), 32)
made("unshare_users", 272, 97, 0x10000000)
made("unshare_mounts", 272, 97, 0x00020000)
made("clone_into_new_users", 56, 220, 0x10000000 | 17, 0, 0, 0, 0)
made("clone3", 435, 435, bytes(88), 88)
made("bpf", 321, 280, 0, bytes(64), 64)
made("keyctl", 250, 219, 0, -3, 1)
made("add_key", 248, 217, b"user", b"x", b"y", 1, -3)
made("request_key", 249, 218, b"user", b"x", 0, 0)
made("io_uring", 425, 425, 8, bytes(120))
made("userfaultfd", 323, 282, 1)
made("perf_event_open", 298, 241, bytes(120), 0, -1, -1, 0)
made("init_module", 175, 105, 0, 0, b"")
made("finit_module", 313, 273, 0, b"", 0)
made("kexec_load", 246, 104, 0, 0, 0, 0)
made("reboot", 169, 142, 0xFEE1DEAD, 672274793, 0, 0)
made("swapon", 167, 224, b"/x", 0)
made("kernel_log_by_call", 103, 116, 3, bytes(100), 100)
made("acct", 163, 89, b"/x")
made("quotactl", 179, 60, 0, 0, 0, 0)
made("fanotify", 300, 262, 0, 0)
made("name_to_handle", 303, 264, AT_FDCWD, b"/usr", bytes(200), bytes(4), 0)
made("open_by_handle", 304, 265, AT_FDCWD, bytes(32), 0)
made("personality", 135, 92, 0x0040000)
made("modify_ldt", 154, None, 1, bytes(16), 16)
made("iopl", 172, None, 3)
made("set_the_clock", 227, 112, 0, struct.pack("qq", 1, 0))
made("sethostname", 170, 161, b"escaped", 7)
made("memory_map_of_itself_by_prctl", 157, 167, 35, 1, 0, 0, 0)
made("a_call_newer_than_the_table", 600, 600)
made("move_pages", 279, 239, 1, 0, 0, 0, 0, 0)
made("secret_memory", 447, 447, 0)
made("uselib", 134, None, b"/x")
made("x32_call", 0x40000000 + 39, None)


@attempt
def namespace_of_the_first_process():
    fd = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    return call(308, 268, fd, 0)


@attempt
def namespace_of_its_own():
    fd = os.open("/proc/self/ns/user", os.O_RDONLY)
    return call(308, 268, fd, 0)


@attempt
def typing_into_the_terminal():
    import fcntl

    return fcntl.ioctl(0, 0x5412, b"x")


@attempt
def rights_of_the_process():
    found = dict(
        line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line
    )
    held = [k for k in ("CapEff", "CapPrm", "CapInh", "CapAmb") if int(found[k], 16)]
    open_doors = [k for k, v in (("NoNewPrivs", "1"), ("Seccomp", "2")) if found[k] != v]
    return held + open_doors or None


@attempt
def becoming_another_user():
    return os.setuid(12345) or "done"


@attempt
def dumps_of_memory():
    import resource

    return resource.getrlimit(resource.RLIMIT_CORE)[1] or None


@attempt
def being_seen_by_others():
    libc.prctl(4, 1, 0, 0, 0)
    return read("/proc/1/environ")


@attempt
def a_better_place_for_the_oom_killer():
    with open("/proc/self/oom_score_adj", "w") as file:
        return file.write("-1000")


@attempt
def the_server_s_modules():
    import importlib.util

    return None if importlib.util.find_spec("dicode_mcp") is None else "found"


def tried(function):
    try:
        evidence = function()
    except BaseException as error:
        number = getattr(error, "errno", None)
        return f"{type(error).__name__} {number or ''}".strip()
    return "nothing to see" if evidence in (None, False) else f"ESCAPED: {str(evidence)[:200]}"


result = {name: tried(function) for name, function in TRIES.items()}
