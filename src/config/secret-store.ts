import { randomBytes } from "node:crypto";
import { linkSync, readFileSync, renameSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { StartError } from "../core/errors.ts";
import { parseSecret, SECRET_LENGTH } from "../protocol/mtproto/secret.ts";
import { hasCode, hintOnDisk, readPrivate, reasonOf, syncFile, writeBeside } from "./private-file.ts";

/** The environment variables that say where configuration is kept. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The folder for what tgws keeps: `TGWS_HOME`, or the platform's place for configuration.
 *
 * @throws {StartError} `FILE` when the environment names none.
 */
export function configFolder(environment: Environment, platform: NodeJS.Platform): string {
  const { TGWS_HOME, XDG_CONFIG_HOME, APPDATA } = environment;
  if (TGWS_HOME) return TGWS_HOME;
  if (platform === "win32" && APPDATA) return join(APPDATA, "tgws");
  const home = environment["HOME"] || homedir();
  if (!home) {
    throw new StartError(
      "FILE",
      "Cannot find a folder for the secret: no home folder",
      "set TGWS_HOME, or use --secret",
    );
  }
  if (platform === "win32") return join(home, "AppData", "Roaming", "tgws");
  if (platform === "darwin") return join(home, "Library", "Application Support", "tgws");
  return join(XDG_CONFIG_HOME || join(home, ".config"), "tgws");
}

/**
 * Returns the secret that is kept in `folder`; makes one at the first time.
 *
 * The file is readable by its owner only (0600), and appears whole or not at all, also when two programs
 * start at once: both then use the one that was first.
 *
 * @throws {StartError} `FILE` when it cannot be read, written or understood.
 */
export function loadOrCreateSecret(folder: string): Uint8Array {
  const path = join(folder, "secret");
  return parseKept(path, readIfThere(path) ?? createSecret(path));
}

/** Returns the secret that is kept in `folder`, if there is one. @throws {StartError} `FILE` */
export function readKeptSecret(folder: string): Uint8Array | undefined {
  const path = join(folder, "secret");
  const text = readIfThere(path);
  return text === undefined ? undefined : parseKept(path, text);
}

function parseKept(path: string, text: string): Uint8Array {
  try {
    return parseSecret(text);
  } catch (error) {
    throw new StartError(
      "FILE",
      `Cannot use the secret in ${path}: it is damaged`,
      "put the right one there, or delete the file to get a new one (links that you gave away stop working)",
      error,
    );
  }
}

/** Returns new random key bytes. */
export function generateSecret(): Uint8Array {
  return randomBytes(SECRET_LENGTH);
}

function readIfThere(path: string): string | undefined {
  try {
    return readPrivate(path);
  } catch (error) {
    throw fileError("read", path, error);
  }
}

function createSecret(path: string): string {
  const text = `${generateSecret().toHex()}\n`;
  try {
    return writeBeside(path, text, (temporary) => {
      syncFile(temporary); // links are given away at once: a power cut must not take the secret back
      try {
        linkSync(temporary, path); // unlike a rename, this does not replace one that came in between
      } catch (error) {
        if (hasCode(error, "EEXIST")) return readFileSync(path, "utf8");
        renameSync(temporary, path); // a file system without links
      }
      return text;
    });
  } catch (error) {
    throw fileError("write", path, error);
  }
}

function fileError(verb: "read" | "write", path: string, error: unknown): StartError {
  const elsewhere = "set TGWS_HOME to a folder of your own, or give one with --secret";
  const disk = hintOnDisk(error);
  return new StartError(
    "FILE",
    `Cannot ${verb} the secret: ${path} (${reasonOf(error)})`,
    disk === undefined ? elsewhere : `${disk}; or ${elsewhere}`,
    error,
  );
}
