import { FormatError } from "../core/errors.ts";
import { type UserPolicy, unlimitedUser } from "../core/users.ts";
import { isLink, looksLikeSecret, parseSecretText } from "../protocol/mtproto/secret.ts";
import type { FieldReader } from "./field-reader.ts";
import { quote } from "./quote.ts";
import type { RawUser, UserFieldName } from "./user-fields.ts";
import { USER_FIELDS } from "./user-fields.ts";
import { readPolicy } from "./user-policy.ts";

/**
 * How many secrets one proxy serves. Who connects is found by trying them in turn: each costs a connection a hash
 * and a block of AES.
 */
export const MAX_SECRETS = 1_000;

/** Who may use the proxy, and the domains of their `ee` secrets, each once. */
export interface Users {
  readonly users: readonly UserPolicy[];
  readonly domains: readonly string[];
}

/** Reads the users: those of `--secret` first, who have no limits, then those of the configuration file. */
export function readUsers(reader: FieldReader): Users {
  const texts = reader.raw.secret ?? [];
  const tables = reader.raw.users ?? [];
  const most = `secrets, but ${MAX_SECRETS} is the most`;
  if (texts.length > MAX_SECRETS) reader.refuse("secret", `${texts.length} ${most}`);
  else if (texts.length + tables.length > MAX_SECRETS) {
    const message = `${texts.length + tables.length} ${most}`;
    reader.issues.push({ path: "users", message, hint: "those of --secret count, too" });
  }
  const roll = new Roll();
  for (const [index, text] of texts.entries()) readSecret(reader, roll, { text, number: index + 1 });
  for (const table of tables) readTable(reader, roll, table);
  return { users: roll.users, domains: [...roll.domains] };
}

/** Whether `name` can be a user's: 1-32 letters, digits, dots, dashes or underscores. */
export function isUserName(name: string): boolean {
  return /^[\w.-]{1,32}$/.test(name) && name !== "__proto__";
}

/** Whether a name may be a secret that was mistyped, or has a colon too many. Who means no harm loses little. */
export function mayBePartOfKey(name: string): boolean {
  return /[0-9a-f]{12}/i.test(name) || (/[\w-]{16}/.test(name) && /\d/.test(name) && /[A-Z]/.test(name));
}

/** The users so far: no two with one name, or with one key. */
class Roll {
  readonly users: UserPolicy[] = [];
  readonly domains = new Set<string>();
  readonly #names = new Set<string>();
  /** By key: who has it first, and the domain of that secret if it has one. */
  readonly #keys = new Map<string, { readonly name: string; readonly domain: string | undefined }>();

  /** What stands against one more user with this name and key; `undefined` when nothing does. */
  add(
    user: UserPolicy,
    domain: string | undefined,
  ): { readonly clash: "name" | "key"; readonly hint?: string; readonly with: string } | undefined {
    const { name } = user;
    const id = user.key.toHex();
    if (domain !== undefined) this.domains.add(domain);
    const first = this.#keys.get(id);
    if (first === undefined) this.#keys.set(id, { name, domain });
    if (this.#names.has(name)) return { clash: "name", with: name };
    if (first !== undefined)
      return { clash: "key", with: first.name, hint: hintOnRepeated(first.domain, domain) };
    this.#names.add(name);
    this.users.push(user);
    return undefined;
  }
}

/** Reads one `--secret`: `[name:]secret`. */
function readSecret(
  reader: FieldReader,
  roll: Roll,
  { text, number }: { readonly text: string; readonly number: number },
): void {
  const refuse = (message: string, hint?: string): void => reader.refuse("secret", message, hint);
  const colon = isLink(text) ? -1 : text.indexOf(":");
  const name = colon < 0 ? `secret${number}` : text.slice(0, colon);
  if (text.trim() === "") {
    refuse("is empty", "`tgws secret` makes one; without --secret, one is made and kept");
    return;
  }
  if (looksLikeSecret(name)) {
    refuse(`in secret ${number}, name and secret are the wrong way round`, "alice:<secret>");
    return;
  }
  if (!isUserName(name)) {
    refuse(`the name of secret ${number} is not 1-32 letters, digits, dots or dashes`, "alice:<secret>");
    return;
  }
  const called = mayBePartOfKey(name) ? `secret ${number}` : name;
  try {
    const { key, domain } = parseSecretText(text.slice(colon + 1));
    const clash = roll.add(unlimitedUser(name, key), domain);
    if (clash?.clash === "name") refuse(`two secrets are named ${called}`);
    else if (clash !== undefined) refuse(`${called} repeats another secret`, clash.hint);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const hint = called === name ? error.hint : "what stands before the colon is the name: alice:<secret>";
    refuse(`${called}: ${error.message}`, hint);
  }
}

/** Reads one `[users.NAME]`. */
function readTable(reader: FieldReader, roll: Roll, { name, settings }: RawUser): void {
  const refuse = (key: UserFieldName | undefined, message: string, hint?: string): void =>
    reader.refuseUser(name, key, { message, hint });
  if (looksLikeSecret(name) || !isUserName(name)) {
    const hint = looksLikeSecret(name)
      ? "[users.alice], with secret = below it"
      : "for example [users.alice]";
    refuse(undefined, "the name is not 1-32 letters, digits, dots, dashes or underscores", hint);
  }
  /** What `parse` makes of a setting; `undefined` when it is not there, or wrong. */
  const read = <T>(key: UserFieldName, parse: (text: string) => T): T | undefined => {
    const text = settings[key];
    if (text === undefined) return undefined;
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      const shown = key === "secret" ? error.message : `${quote(text)}: ${error.message}`;
      const hint = error.hint ?? `${key} = <${USER_FIELDS[key].value}>`;
      refuse(key, text.trim() === "" ? "is empty" : shown, hint);
      return undefined;
    }
  };
  const policy = readPolicy(read);
  const secret = read("secret", parseSecretText);
  if (settings.secret === undefined && !reader.mentions(name, "secret"))
    refuse(undefined, "has no secret", 'secret = "<secret>"; `tgws secret` makes one');
  if (secret === undefined) return;
  const clash = roll.add({ name, key: secret.key, ...policy }, secret.domain);
  if (clash?.clash === "name") refuse(undefined, "a --secret has this name already", "keep one of them");
  else if (clash !== undefined) refuse("secret", `is also the one of ${quote(clash.with)}`, clash.hint);
}

/** What to do about two secrets with one key, of which each may have a domain. */
function hintOnRepeated(first: string | undefined, second: string | undefined): string {
  if (first === second) return "leave one of them out";
  if (first === undefined || second === undefined)
    return "the `ee` one is enough: --accept ee,dd keeps both links";
  return `--fake-tls-domain ${second} adds its domain`;
}
