import { dlopen, FFIType } from "bun:ffi";

/** Where the C library is; `undefined` where nothing here needs it. */
const NAMES: Readonly<Partial<Record<NodeJS.Platform, readonly string[]>>> = {
  linux: ["libc.so.6", `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`],
  darwin: ["libSystem.B.dylib"],
};
const { i32, u64, ptr } = FFIType;
const SYMBOLS = {
  dup: { args: [i32], returns: i32 },
  fcntl: { args: [i32, i32, i32], returns: i32 },
  close: { args: [i32], returns: i32 },
  poll: { args: [ptr, u64, i32], returns: i32 },
} as const;

/** Linux: duplicates, and does not pass it on to programs that are started. */
const F_DUPFD_CLOEXEC = 1030;
/** Above the standard streams, so that none of them is taken. */
const LEAST_FD = 3;
const POLLIN = 1;

type Libc = ReturnType<typeof load>;
let libc: Libc | undefined;

/** What Bun's sockets cannot do by themselves. Loaded at the first call: it costs a MiB. */
function load() {
  const names = NAMES[process.platform] ?? [];
  for (const name of names) {
    try {
      return dlopen(name, SYMBOLS).symbols;
    } catch {
      // The other C library, then.
    }
  }
  return undefined;
}

function symbols(): NonNullable<Libc> | undefined {
  libc ??= load();
  return libc;
}

/**
 * Returns another descriptor of the same open socket, which stays open when `fd` is closed; `undefined` where that
 * cannot be had (Windows), or there are no more.
 */
export function duplicate(fd: number): number | undefined {
  const library = symbols();
  // On macOS functions with any number of arguments take them elsewhere, which this cannot do.
  const copy =
    process.platform === "darwin" ? library?.dup(fd) : library?.fcntl(fd, F_DUPFD_CLOEXEC, LEAST_FD);
  if (copy === undefined) return undefined;
  return copy < 0 ? undefined : copy;
}

/** Closes a descriptor that came from {@link duplicate}. */
export function closeDescriptor(fd: number): void {
  symbols()?.close(fd);
}

/** Whether there is something to read; of a listening socket: whether somebody waits to be accepted. */
export function isReadable(fd: number): boolean {
  // struct pollfd: int fd; short events; short revents.
  const entry = new DataView(new ArrayBuffer(8));
  entry.setInt32(0, fd, true);
  entry.setInt16(4, POLLIN, true);
  const found = symbols()?.poll(new Uint8Array(entry.buffer), 1, 0) ?? 0;
  return found > 0 && (entry.getInt16(6, true) & POLLIN) !== 0;
}
