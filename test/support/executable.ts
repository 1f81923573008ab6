import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { executableName, nativePlatform, type Platform } from "../../scripts/build.ts";
import { Program, type ProgramOptions } from "./proxy.ts";
import { temporaryFolder } from "./temporary.ts";

/** With the download of another platform's runtime, 40 MB. */
export const BUILD_LIMIT_MS = 5 * 60_000;
/** The platform that is tested under an emulator, where there is one. */
export const EMULATED: Platform = "linux-arm64";
export const EMULATOR = "qemu-aarch64";
/** Where Debian's libc6-arm64-cross puts the C library. */
const SYSROOT = "/usr/aarch64-linux-gnu";

/** What makes executables. */
export const BUILD_SCRIPT = resolve(import.meta.dir, "../../scripts/build.ts");

/** How a {@link Program} is started. */
export type Command = NonNullable<ProgramOptions["command"]>;

/** The executables that `bun run build` makes, as far as they can be run here. */
export interface Executables {
  /** Where they are, with `SHA256SUMS`. Removed at the end. */
  readonly folder: string;
  readonly platforms: readonly Platform[];
  readonly native: Command;
  /** Without an emulator it cannot be run. */
  readonly emulated: Command;
}

/** The platform of this machine. @throws {Error} When there are no executables for it. */
export function testPlatform(): Platform {
  const native = nativePlatform();
  if (native === undefined)
    throw new Error(`There are no executables for ${process.platform}-${process.arch}`);
  return native;
}

/** Says why the arm64 executable cannot be run beside the native one, or `undefined` when it can. */
export function whatEmulationLacks(): string | undefined {
  if (testPlatform() === EMULATED) return "it is the native one, and tested as that";
  if (Bun.which(EMULATOR) === null) return `${EMULATOR} is missing (Debian: apt install qemu-user)`;
  if (existsSync(SYSROOT)) return undefined;
  return `${SYSROOT} is missing (Debian: apt install libc6-arm64-cross)`;
}

/** Builds the executable of this machine alone, which takes a second or two. */
export async function buildNative(): Promise<Command> {
  return (await build([testPlatform()])).native;
}

/** Builds the executables, which takes some seconds. */
export function buildExecutables(): Promise<Executables> {
  const native = testPlatform();
  return build(whatEmulationLacks() === undefined ? [native, EMULATED] : [native]);
}

async function build(platforms: readonly Platform[]): Promise<Executables> {
  const folder = temporaryFolder("tgws-binary-");
  const targets = platforms.flatMap((platform) => ["--target", platform]);
  await using program = new Program({
    command: [process.execPath, BUILD_SCRIPT, "--outdir", folder, ...targets],
  });
  const code = await program.exited(BUILD_LIMIT_MS);
  if (code !== 0) throw new Error(`Cannot build the executables: ${program.stderr}`);
  return {
    folder,
    platforms,
    native: [join(folder, executableName(testPlatform()))],
    emulated: [EMULATOR, "-L", SYSROOT, join(folder, executableName(EMULATED))],
  };
}
