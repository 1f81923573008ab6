import type { Config } from "../config/config.ts";
import { readPem, readTrust } from "./trust.ts";

/** Reads a file that the configuration names. @throws {Error} When it cannot be read. */
export type ReadText = (path: string) => string;

/** The texts of the files that a configuration names, by their names in it. */
export type NamedFiles = Readonly<Record<string, string>>;

/**
 * Reads the files that `config` names, for those who are to use what is in them now: a worker that starts when one of
 * them is broken works with what the others have.
 *
 * @throws {ConfigError} @throws {StartError} When one of them cannot be used.
 */
export async function readNamedFiles(config: Config): Promise<NamedFiles> {
  const files: Record<string, string> = {};
  const keeping = (read: ReadText): ReadText => {
    return (path) => {
      const text = read(path);
      files[path] = text;
      return text;
    };
  };
  await readTrust(config, keeping(readPem));
  if (config.allow.length > 0 || config.deny.length > 0) {
    const { readAddressLists, readList } = await import("./read-address-lists.ts"); // few have lists
    await readAddressLists(config, keeping(readList));
  }
  return files;
}

/** Reads from `files` instead of from disk; without any, `undefined`. */
export function readerOf(files: NamedFiles | undefined): ReadText | undefined {
  if (files === undefined) return undefined;
  return (path) => {
    const text = files[path];
    if (text === undefined) throw new Error("it was not read");
    return text;
  };
}
