import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** What is there to be handed on: these lines are meant to have the secret in them. */
const LINKS = /(?:tg:\/\/proxy|https:\/\/t\.me\/proxy)\?\S+/g;
const KEY_LENGTH = 16;
/** Of 17 bytes, the first 22 characters of base64 do not depend on what follows. */
const PREFIXED_CHARACTERS = 22;
/** A shorter word may stand anywhere. */
const SHORTEST_WORD = 8;

/** Flags whose values nobody may read, besides `--secret`. */
const SENSITIVE = /^--(?:status-token|cfproxy-worker-token)(?:=(.*))?$/s;

/** Remembers the secrets that a program was started with, and finds them in what it has printed. */
export class LeakedSecrets {
  readonly #words = new Set<string>();

  /** Takes in the values of flags that are secret. */
  addFlags(args: readonly string[]): void {
    for (const [index, arg] of args.entries()) {
      const next = args[index + 1] ?? "";
      if (arg === "--secret") this.#addSecret(next);
      else if (arg.startsWith("--secret=")) this.#addSecret(arg.slice("--secret=".length));
      const sensitive = SENSITIVE.exec(arg);
      if (sensitive !== null) this.#addWord(sensitive[1] ?? next);
    }
  }

  /** Takes in the variables that are secret. */
  addEnvironment(environment: Readonly<Record<string, string>>): void {
    for (const secret of (environment["TGWS_SECRET"] ?? "").split(",")) this.#addSecret(secret.trim());
    for (const name of ["TGWS_STATUS_TOKEN", "TGWS_CFPROXY_WORKER_TOKEN"])
      this.#addWord(environment[name] ?? "");
  }

  /** Takes in what a configuration folder has: the kept secret, and those of the configuration file. */
  addHome(home: string): void {
    const kept = join(home, "secret");
    if (existsSync(kept)) this.#addSecret(readText(kept).trim());
    const file = join(home, "config.toml");
    if (existsSync(file)) {
      for (const [, secret = ""] of readText(file).matchAll(/secret"?\s*=\s*"([^"\n]*)"/g))
        this.#addSecret(secret);
    }
  }

  /** The first secret in `text`, links left out; `undefined`: there is none. */
  findIn(text: string): string | undefined {
    const rest = text.replaceAll(LINKS, "");
    const lower = rest.toLowerCase();
    for (const word of this.#words) {
      if (/^[0-9a-f]{32}$/.test(word) ? lower.includes(word) : rest.includes(word)) return word;
    }
    return undefined;
  }

  /** @param text As after `--secret`: `[name:]secret`, or a link. */
  #addSecret(text: string): void {
    const [, inLink] = /[?&]secret=([^&\s]+)/.exec(text) ?? [];
    const secret = inLink ?? text.replace(/^[\w.-]+:/, "");
    this.#addWord(secret);
    const bytes = /^[0-9a-f]+$/i.test(secret) ? Buffer.from(secret, "hex") : Buffer.from(secret, "base64");
    const key = bytes.length > KEY_LENGTH ? bytes.subarray(1, 1 + KEY_LENGTH) : bytes;
    if (key.length === KEY_LENGTH) this.#addKey(key);
  }

  #addKey(key: Uint8Array): void {
    this.#addWord(key.toHex());
    for (const alphabet of ["base64", "base64url"] as const) {
      this.#addWord(key.toBase64({ alphabet, omitPadding: true }));
      for (const form of [0xdd, 0xee]) {
        const text = Uint8Array.of(form, ...key).toBase64({ alphabet, omitPadding: true });
        this.#addWord(text.slice(0, PREFIXED_CHARACTERS));
      }
    }
  }

  #addWord(word: string): void {
    if (word.length >= SHORTEST_WORD) this.#words.add(word);
  }
}

/** What stands in the log file that `args` name, and in its old ones. */
export function readLogFiles(args: readonly string[]): string {
  const at = args.indexOf("--log-file");
  const path = at < 0 ? undefined : args[at + 1];
  if (path === undefined || statSync(dirname(path), { throwIfNoEntry: false })?.isDirectory() !== true)
    return "";
  const names = readdirSync(dirname(path)).filter((name) => name.startsWith(basename(path)));
  return names.map((name) => readText(join(dirname(path), name))).join("\n");
}

/** A test may have put anything there. */
function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
