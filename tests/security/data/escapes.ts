// A task that tries everything. Each try gives evidence when it came through, else why not.

// deno-lint-ignore-file
const T: any = {};
const TRIES: Record<string, () => unknown> = {};
const attempt = (name: string, act: () => unknown) => { TRIES[name] = act; };
const HERE = new URL(".", import.meta.url).pathname;
const TMP = Deno.env.get("TMPDIR")!;
const ARM = Deno.build.arch === "aarch64";
const bytes = (text: string) => new TextEncoder().encode(text + "\0");
const text = (path: string) => Deno.readTextFileSync(path);
const name = (path: string) => path.split("/").at(-1)!;

// Native calls need Deno's permission `ffi`, which no manifest can give: the bare cage is tried.
let native: any = null;
function library() {
  native ??= Deno.dlopen(ARM ? "libc.so.6" : "libc.so.6", {
    syscall: {
      parameters: ["i64", "i64", "i64", "i64", "i64", "i64", "i64"],
      result: "i64",
    },
    __errno_location: { parameters: [], result: "pointer" },
  });
  return native.symbols;
}
function call(x86: number, arm: number | null, ...args: any[]) {
  const lib = library();
  const number = ARM ? arm : x86;
  if (number === null) throw new Error("no such call here");
  const given = args.map((a) =>
    typeof a === "number" ? BigInt(a) : Deno.UnsafePointer.value(Deno.UnsafePointer.of(a))
  );
  while (given.length < 6) given.push(0n);
  const result = lib.syscall(BigInt(number), ...given);
  if (result >= 0) return `returned ${result}`;
  const at = lib.__errno_location();
  throw new Error(`errno ${new Deno.UnsafePointerView(at).getInt32()}`);
}
const made = (name: string, x86: number, arm: number | null, ...args: any[]) =>
  attempt(name, () => call(x86, arm, ...args.map((a) => typeof a === "function" ? a() : a)));

// Files
attempt("file_by_its_path", () => text(T.canary));
attempt("file_by_a_relative_path", () => text(HERE + "../canary/secret.txt"));
attempt("file_through_a_link_in_the_task_folder", () => text(HERE + "link"));
attempt("folder_through_a_link_in_the_task_folder", () => text(`${HERE}folder_link/${name(T.canary)}`));
attempt("file_through_a_link_made_by_the_task", () => {
  Deno.symlinkSync(T.canary, TMP + "/made");
  return text(TMP + "/made");
});
attempt("hard_link_to_a_file", () => {
  Deno.linkSync(T.canary, TMP + "/hard");
  return text(TMP + "/hard");
});
attempt("file_by_import", () => import("file://" + T.canary, { with: { type: "text" } } as any));
attempt("file_by_import_through_a_link", () => import(HERE + "link", { with: { type: "text" } } as any));
attempt("file_by_fetch", async () => await (await fetch("file://" + T.canary)).text());
attempt("file_by_a_worker", () =>
  new Promise((resolve, reject) => {
    const code = `import x from "file://${T.canary}" with {type: "text"}; postMessage(x)`;
    const worker = new Worker("data:application/javascript," + encodeURIComponent(code), { type: "module" });
    worker.onmessage = (event) => resolve(event.data);
    worker.onerror = (event) => { event.preventDefault(); reject(new Error(event.message)); };
  }));
attempt("file_through_proc_self_root", () => text("/proc/self/root" + T.canary));
attempt("file_through_proc_1_root", () => text("/proc/1/root" + T.canary));
attempt("file_through_the_servers_root", () => text(`/proc/${T.server}/root${T.canary}`));
attempt("file_by_moving_it_in", () => { Deno.renameSync(T.canary, TMP + "/moved"); return text(TMP + "/moved"); });
attempt("file_by_copying_it", () => { Deno.copyFileSync(T.canary, TMP + "/copy"); return text(TMP + "/copy"); });
attempt("existence_of_a_file", () => Deno.statSync(T.canary));
attempt("real_path_of_a_link", () => Deno.realPathSync(HERE + "link"));
attempt("etc_shadow", () => text("/etc/shadow"));
attempt("etc_hosts_of_the_machine", () => text("/etc/hosts") === T.plain_hosts ? null : text("/etc/hosts"));
attempt("etc_passwd_of_the_machine", () => text("/etc/passwd").includes("daemon") ? text("/etc/passwd") : null);
attempt("files_of_another_run", () => [...Deno.readDirSync(T.other_scratch)]);
attempt("temporary_file_of_another_run", () => text(T.other_scratch + "/tmp/secret"));
attempt("shared_memory_of_the_machine", () => text("/dev/shm/" + T.shm));
attempt("home_of_root", () => [...Deno.readDirSync("/root" + "/.ssh")]);
attempt("docker_socket", () => Deno.statSync("/var/run/docker.sock"));
attempt("listing_of_the_root_shows_the_machine", () => {
  const found = [...Deno.readDirSync("/")].map((e) => e.name).filter((n) => ["boot", "var", "srv", "mnt"].includes(n));
  return found.length ? found : null;
});
attempt("programs_in_sight", () => {
  const found = ["/usr/bin/id", "/usr/bin/su", "/bin/sh"].filter((p) => { try { return Deno.statSync(p); } catch { return false; } });
  return found.length ? found : null;
});

// Writing
attempt("write_to_the_task_folder", () => { Deno.writeTextFileSync(HERE + "new", "x"); return "done"; });
attempt("overwrite_the_script", () => { Deno.writeTextFileSync(HERE + "task.ts", "x", { append: true }); return "done"; });
attempt("truncate_the_script", () => { Deno.truncateSync(HERE + "task.ts", 0); return "done"; });
attempt("chmod_of_the_script", () => { Deno.chmodSync(HERE + "task.ts", 0o777); return "done"; });
attempt("chmod_of_the_task_folder", () => { Deno.chmodSync(HERE, 0o777); return "done"; });
attempt("chown_of_the_task_folder", () => { Deno.chownSync(HERE, Deno.uid(), Deno.gid()); return "done"; });
attempt("utime_of_the_script", () => { Deno.utimeSync(HERE + "task.ts", 1, 1); return "done"; });
attempt("rename_of_the_script", () => { Deno.renameSync(HERE + "task.ts", HERE + "x"); return "done"; });
attempt("removal_of_the_script", () => { Deno.removeSync(HERE + "task.ts"); return "done"; });
attempt("folder_in_the_task_folder", () => { Deno.mkdirSync(HERE + "d"); return "done"; });
attempt("write_to_the_module_cache", () => { Deno.writeTextFileSync(Deno.env.get("DENO_DIR") + "/x", "x"); return "done"; });
attempt("write_to_usr", () => { Deno.writeTextFileSync("/usr/lib/escaped", "x"); return "done"; });
attempt("folder_at_the_root", () => { Deno.mkdirSync("/escaped"); return "done"; });
attempt("core_pattern", () => { Deno.writeTextFileSync("/proc/sys/kernel/core_pattern", "|/bin/false"); return "done"; });
attempt("sysfs", () => [...Deno.readDirSync("/sys")]);
attempt("device_of_memory", () => Deno.openSync("/dev/mem") && "open");
attempt("kernel_log", () => Deno.openSync("/dev/kmsg") && "open");
attempt("kcore", () => Deno.openSync("/proc/kcore") && "open");

// Processes
attempt("environment_of_the_server", () => text(`/proc/${T.server}/environ`).includes(T.env_secret) ? "seen" : null);
attempt("environment_of_the_first_process", () => text("/proc/1/environ"));
attempt("memory_of_the_first_process", () => Deno.openSync("/proc/1/mem", { read: true, write: true }) && "open");
attempt("descriptors_of_the_first_process", () => [...Deno.readDirSync("/proc/1/fd")]);
attempt("own_environment", () => {
  const found = Object.entries(Deno.env.toObject()).filter(([, v]) => v.includes(T.env_secret));
  return found.length ? found : null;
});
attempt("environment_of_all_processes", () => {
  for (const entry of Deno.readDirSync("/proc")) {
    try {
      if (/^\d+$/.test(entry.name) && text(`/proc/${entry.name}/environ`).includes(T.env_secret)) return entry.name;
    } catch { /* not that one */ }
  }
  return null;
});
attempt("signal_to_the_server", () => { Deno.kill(T.server, "SIGCONT"); return "sent"; });
attempt("signal_to_the_first_process", () => { Deno.kill(1, "SIGKILL"); return null; });
attempt("descriptors_that_leaked", () => {
  const odd = [...Deno.readDirSync("/proc/self/fd")].map((e) => {
    try { return Deno.readLinkSync("/proc/self/fd/" + e.name); } catch { return ""; }
  }).filter((p) => p.includes("plan") || p.includes("secret") || p.startsWith("/work") || p.includes("state.db"));
  return odd.length ? odd : null;
});

// Network
const connect = (hostname: string, port: number) => async () => { (await Deno.connect({ hostname, port })).close(); return "connected"; };
attempt("tcp_to_a_listener_on_this_machine", () => connect("127.0.0.1", T.tcp)());
attempt("tcp_by_ipv6", () => connect("::1", T.tcp6)());
attempt("tcp_to_a_public_address", () => connect("192.0.2.1", 443)());
attempt("name_by_dns", () => Deno.resolveDns("example.com", "A"));
attempt("fetch", () => fetch(`http://127.0.0.1:${T.tcp}/`));
attempt("udp_datagram", async () => {
  // Its refusal comes outside of any promise.
  const asked = await Deno.permissions.query({ name: "net" });
  if (asked.state !== "granted") throw new Error("refused by Deno");
  const { default: dgram } = await import("node:dgram");
  return await new Promise((resolve, reject) => {
    const s = dgram.createSocket("udp4");
    s.on("error", reject);
    s.send("x", T.udp, "127.0.0.1", (e: unknown) => { s.close(); e ? reject(e) : resolve(null); });
  });
});
attempt("unix_socket_of_the_machine", async () => { (await Deno.connect({ transport: "unix", path: T.unix } as any)).close(); return "connected"; });
attempt("abstract_unix_socket", async () => { (await Deno.connect({ transport: "unix", path: "\0" + T.abstract } as any)).close(); return "connected"; });
attempt("interfaces_of_the_machine", () => {
  const found = Deno.networkInterfaces().filter((i) => i.name !== "lo");
  return found.length ? found : null;
});
attempt("name_of_the_machine", () => Deno.hostname() === T.host ? T.host : null);

// Programs
const ran = (path: string, ...args: string[]) => {
  const out = new Deno.Command(path, { args }).outputSync();
  return out.success ? new TextDecoder().decode(out.stdout) || "ran" : null;
};
attempt("a_program", () => ran("/usr/bin/id"));
attempt("a_shell", () => ran("/bin/sh", "-c", "id"));
attempt("a_program_through_the_loader", () => ran(ARM ? "/lib/ld-linux-aarch64.so.1" : "/lib64/ld-linux-x86-64.so.2", "/usr/bin/id"));
attempt("a_program_of_the_library_folders", () => {
  for (const each of ["/usr/lib/klibc/bin/sh", "/usr/lib/git-core/git", "/usr/lib/openssh/ssh-keysign", "/usr/libexec/sudo/sudo"]) {
    try { const out = ran(each, "--version"); if (out) return out; } catch { /* refused */ }
  }
  return null;
});
attempt("a_program_written_by_the_task", () => {
  Deno.writeTextFileSync(TMP + "/own.sh", "#!/bin/sh\nid\n", { mode: 0o755 });
  return ran(TMP + "/own.sh");
});
attempt("itself_with_all_permissions", () => ran(Deno.execPath(), "eval", `console.log(Deno.readTextFileSync("${T.canary}"))`));
attempt("a_library_written_by_the_task", () => {
  Deno.writeTextFileSync(TMP + "/lib.so", "");
  return Deno.dlopen(TMP + "/lib.so", {});
});

// The kernel, past Deno
made("mount", 165, 40, bytes("none"), () => bytes(TMP), bytes("tmpfs"), 0, 0);
made("umount", 166, 39, bytes("/proc"), 2);
made("chroot", 161, 51, () => bytes(TMP));
made("pivot_root", 155, 41, bytes("."), bytes("."));
made("open_tree", 428, 428, -100, bytes("/"), 1);
made("fsopen", 430, 430, bytes("tmpfs"), 0);
made("mount_setattr", 442, 442, -100, bytes("/"), 0, new Uint8Array(32), 32);
made("unshare_users", 272, 97, 0x10000000);
made("unshare_mounts", 272, 97, 0x00020000);
made("setns", 308, 268, 0, 0);
made("clone_into_new_users", 56, 220, 0x10000000 | 17, 0, 0, 0, 0);
made("clone3", 435, 435, new Uint8Array(88), 88);
made("ptrace_of_the_first_process", 101, 117, 16, 1, 0, 0);
made("process_vm_readv", 310, 270, 1, 0, 0, 0, 0, 0);
made("process_vm_writev", 311, 271, 1, 0, 0, 0, 0, 0);
made("pidfd_getfd", 438, 438, 0, 0, 0);
made("kcmp", 312, 272, 1, 1, 0, 0, 0);
made("bpf", 321, 280, 0, new Uint8Array(64), 64);
made("keyctl", 250, 219, 0, -3, 1);
made("add_key", 248, 217, bytes("user"), bytes("x"), bytes("y"), 1, -3);
made("io_uring", 425, 425, 8, new Uint8Array(120));
made("userfaultfd", 323, 282, 1);
made("perf_event_open", 298, 241, new Uint8Array(120), 0, -1, -1, 0);
made("init_module", 175, 105, 0, 0, bytes(""));
made("kexec_load", 246, 104, 0, 0, 0, 0);
made("reboot", 169, 142, 0xfee1dead, 672274793, 0, 0);
made("kernel_log_by_call", 103, 116, 3, new Uint8Array(100), 100);
made("fanotify", 300, 262, 0, 0);
made("name_to_handle", 303, 264, -100, bytes("/usr"), new Uint8Array(200), new Uint8Array(4), 0);
made("open_by_handle", 304, 265, -100, new Uint8Array(32), 0);
made("personality", 135, 92, 0x0040000);
made("modify_ldt", 154, null, 1, new Uint8Array(16), 16);
made("sethostname", 170, 161, bytes("escaped"), 7);
made("a_call_newer_than_the_table", 600, 600);
made("secret_memory", 447, 447, 0);
made("executable_memory_file", 319, 279, bytes("x"), 0);
made("raw_socket", 41, 198, 2, 3, 1);
made("packet_socket", 41, 198, 17, 3, 0x300);
made("netlink_socket", 41, 198, 16, 3, 0);
made("vsock", 41, 198, 40, 1, 0);
made("kernel_crypto_socket", 41, 198, 38, 5, 0);
made("kill_the_server", 62, 129, () => T.server, 0);
made("openat_of_a_file", 257, 56, -100, () => bytes(T.canary), 0, 0);
made("mknod_of_a_disk", 259, 33, -100, () => bytes(TMP + "/disk"), 0o60600, 254 << 8);
made("execve_of_a_shell", 59, 221, bytes("/bin/sh"), 0, 0);
made("setuid", 105, 146, 12345);

async function tried(act: () => unknown): Promise<string> {
  let clock = 0;
  try {
    const late = new Promise((_, reject) => { clock = setTimeout(() => reject(new Error("no answer")), 3000); });
    const evidence = await Promise.race([act(), late]);
    if (evidence === null || evidence === undefined || evidence === false) return "nothing to see";
    const shown = typeof evidence === "string" ? evidence : Deno.inspect(evidence);
    return "ESCAPED: " + shown.slice(0, 200);
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`.slice(0, 100);
  } finally {
    clearTimeout(clock);
  }
}

export default async function main({ params }: DicodeSdk) {
  Object.assign(T, await params.all());
  const found: Record<string, string> = {};
  for (const [name, act] of Object.entries(TRIES)) found[name] = await tried(act);
  return found;
}
