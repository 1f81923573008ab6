/** Whether this process may give a program a network of its own, with `ip` to change it. */
export function canUnshareNetwork(): boolean {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false;
  if (["unshare", "nsenter", "ip"].some((program) => Bun.which(program) === null)) return false;
  const make = "ip link set lo up && ip link add tgws0 type veth peer name tgws1";
  return Bun.spawnSync(["unshare", "--net", "sh", "-c", make]).exitCode === 0;
}

/** A command that gives the program after it a network of its own, which is loopback alone. */
export const IN_OWN_NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"] as const;

/** Runs `ip` in the network of a process. @throws {Error} When it fails. */
export function changeNetwork(pid: number, ...words: readonly string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["nsenter", "--net", "--target", String(pid), "ip", ...words]);
  if (exitCode !== 0) throw new Error(`ip ${words.join(" ")}: ${stderr.toString()}`);
}
