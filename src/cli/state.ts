import { createHash } from "node:crypto";
import { join } from "node:path";
import { AppendFile } from "../config/append-file.ts";
import { DEFAULT_CF_LIST_URL } from "../config/config.ts";
import { configFolder } from "../config/secret-store.ts";
import { StateFile, type StateFileError } from "../config/state-file.ts";
import { StartError } from "../core/errors.ts";
import { Standings } from "../upstream/standings.ts";

/** The database of what users have moved, in the configuration folder. */
export const USAGE_FILE = "usage.db";

/** What is learned while running and kept for the next start. */
export interface State {
  /** Where it is kept; `undefined`: nowhere. */
  readonly folder: string | undefined;
  /** As it was kept. */
  readonly standings: Standings;
  /** What was kept could not be read. */
  readonly damaged: boolean;
  /** Where the standings are kept. */
  readonly routes: KeptText;
  /** Where the list of domains from `url` is kept. */
  domainsOf(url: string): KeptText;
  /** Where the ClientHellos are kept that were answered; `undefined` without a folder. */
  readonly hellos: AppendFile | undefined;
}

interface KeptText {
  read(): string | undefined;
  write(text: string): void;
}

/**
 * Opens what was kept. Never fails: without a folder, or with a damaged file, everything is learned anew.
 *
 * @param onFailed Hears why something is not kept, once.
 */
export function openState(onFailed: (error: StateFileError) => void): State {
  const folder = stateFolder();
  const file = (name: string): KeptText =>
    folder === undefined ? NOWHERE : new StateFile(join(folder, name), onFailed);
  const routes = file("routes.json");
  const standings = new Standings();
  const text = routes.read();
  const damaged = text !== undefined && !standings.load(text);
  const hellos = folder === undefined ? undefined : new AppendFile(join(folder, "hellos"), onFailed);
  return { folder, standings, damaged, routes, domainsOf: (url) => file(listName(url)), hellos };
}

/** A list from another place has a file of its own: going back to the usual one must not serve the other. */
function listName(url: string): string {
  if (url === DEFAULT_CF_LIST_URL) return "cf-domains.txt";
  return `cf-domains.${createHash("sha256").update(url).digest("hex").slice(0, 8)}.txt`;
}

const NOWHERE: KeptText = { read: () => undefined, write: () => {} };

/** Where the traffic of the users is kept; `undefined` without a folder. */
export function usagePath(): string | undefined {
  const folder = stateFolder();
  return folder === undefined ? undefined : join(folder, USAGE_FILE);
}

/** Whether a file in the folder is one that the program writes while it runs. */
export function isStateFile(name: string): boolean {
  return /^(?:secret|hellos|routes\.json|cf-domains(?:\.[0-9a-f]{8})?\.txt|usage\.db(?:-wal|-shm)?)$/.test(
    name,
  );
}

/** The folder for what is kept; `undefined` when the environment names none. */
export function stateFolder(): string | undefined {
  try {
    return configFolder(process.env, process.platform);
  } catch (error) {
    if (error instanceof StartError) return undefined; // no home: a service that was given its secret
    throw error;
  }
}
