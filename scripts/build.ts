/**
 * Builds the standalone executables: `bun run build [--target NAME]... [--outdir FOLDER]`.
 *
 * Without `--target` it builds them all. Every one holds the Bun runtime of the version that runs this
 * script; Bun fetches those of other platforms from npm and keeps them.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import packageJson from "../package.json" with { type: "json" };

const PLATFORMS = [
  "linux-x64",
  "linux-arm64",
  "linux-x64-musl",
  "linux-arm64-musl",
  "windows-x64",
  "windows-arm64",
  "darwin-x64",
  "darwin-arm64",
] as const;

/** A platform there is an executable for, as it stands in the name of the file. */
export type Platform = (typeof PLATFORMS)[number];

const ROOT = resolve(import.meta.dir, "..");
const CHECKSUMS = "SHA256SUMS";

/** The name of the executable for `platform`. */
export function executableName(platform: Platform): string {
  return `tgws-${platform}${platform.startsWith("windows") ? ".exe" : ""}`;
}

/** The platform that this script runs on, or `undefined` when there is no executable for it. */
export function nativePlatform(): Platform | undefined {
  const system = process.platform === "win32" ? "windows" : process.platform;
  const suffix = system === "linux" && runsOnMusl() ? "-musl" : "";
  return PLATFORMS.find((platform) => platform === `${system}-${process.arch}${suffix}`);
}

/**
 * Builds the executable for `platform` into `folder` and returns its path.
 *
 * @throws {AggregateError} When the program cannot be bundled, or the runtime cannot be fetched.
 */
async function buildExecutable(platform: Platform, folder: string): Promise<string> {
  const outfile = join(folder, executableName(platform));
  const { outputs } = await Bun.build({
    entrypoints: [join(ROOT, "src/main.ts")],
    // Not the identifiers: the names of error classes are part of what is shown.
    minify: { whitespace: true, syntax: true, identifiers: false },
    // Embedded, so that a reported stack trace names files and lines.
    sourcemap: "linked",
    // Parsed ahead: it listens after 12 ms instead of 25, for 2.5 MB of 110.
    bytecode: true,
    // In one piece, what is imported only when needed would load its modules at the start: 6 MiB of memory.
    splitting: true,
    format: "esm",
    define: { "process.env.NODE_ENV": JSON.stringify("production") },
    compile: {
      outfile,
      target: `bun-${platform}`,
      // Whoever can write to the folder it is started in must not get code or settings into it.
      autoloadDotenv: false,
      autoloadBunfig: false,
      autoloadTsconfig: false,
      autoloadPackageJson: false,
    },
  });
  for (const { kind, path } of outputs) if (kind === "sourcemap") await rm(path);
  return outfile;
}

/** Writes the checksums of `paths`, which all lie in `folder`, in the format of `sha256sum`. */
async function writeChecksums(folder: string, paths: readonly string[]): Promise<void> {
  const lines: string[] = [];
  for (const path of paths) lines.push(`${await sha256(path)}  ${basename(path)}\n`);
  await writeFile(join(folder, CHECKSUMS), lines.join(""));
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}

/** Only glibc puts its version into the report. */
function runsOnMusl(): boolean {
  const report: { header?: { glibcVersionRuntime?: string } } = process.report.getReport();
  return report.header?.glibcVersionRuntime === undefined;
}

/** @throws {Error} When `name` is neither a platform nor `native`. */
function parsePlatform(name: string): Platform {
  const platform = name === "native" ? nativePlatform() : PLATFORMS.find((known) => known === name);
  if (platform !== undefined) return platform;
  if (name === "native") {
    throw new Error(`Cannot build an executable for ${process.platform}-${process.arch}: Bun has no runtime`);
  }
  throw new Error(`Cannot build for ${name}: the targets are native, ${PLATFORMS.join(", ")}`);
}

async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      target: { type: "string", multiple: true, default: [...PLATFORMS] },
      outdir: { type: "string", default: join(ROOT, "dist") },
    },
  });
  const platforms = new Set(values.target.map(parsePlatform));
  const folder = resolve(values.outdir);
  await mkdir(folder, { recursive: true });
  process.chdir(ROOT); // the bytes of a build depend on the folder it is started in
  console.log(`tgws ${packageJson.version} with Bun ${Bun.version}, into ${folder}`);
  const paths: string[] = [];
  for (const platform of platforms) {
    const path = await buildExecutable(platform, folder);
    paths.push(path);
    console.log(`${basename(path).padEnd(24)} ${(Bun.file(path).size / 2 ** 20).toFixed(1).padStart(6)} MiB`);
  }
  await writeChecksums(folder, paths);
}

if (import.meta.main) {
  try {
    await main(Bun.argv.slice(2));
  } catch (error) {
    const errors = error instanceof AggregateError ? error.errors : [error];
    for (const each of errors) console.error(each instanceof Error ? each.message : String(each));
    process.exitCode = 1;
  }
}
