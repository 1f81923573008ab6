/** What can be said about one user, by the key in its table of the configuration file. */
export const USER_FIELDS = {
  secret: {
    value: "secret",
    kind: "text",
    help: "As for `--secret`, without a name; the domain of an `ee` secret becomes one of fake TLS",
  },
  enabled: { value: "true|false", kind: "switch", default: "true", help: "Whether the user is served" },
  "max-connections": {
    value: "number",
    kind: "number",
    help: "Most connections at a time; an app has a dozen or two",
  },
  "max-addresses": { value: "number", kind: "number", help: "Most different IP addresses at a time" },
  "quota-gb": {
    value: "GB",
    kind: "number",
    help: "Most traffic, up and down together, until `tgws users reset`; a GB is 1024³ bytes",
  },
  expires: {
    value: "date",
    kind: "date",
    help: "The last day of service, up to its end in UTC (`2027-01-31`), or a time (`2027-01-31T12:00:00Z`)",
  },
  "rate-kb": {
    value: "KB/s",
    kind: "number",
    help: "Most traffic per second, up and down together, over all connections; a KB is 1024 bytes",
  },
} as const satisfies Record<string, UserField>;

/** One setting of a user. */
export interface UserField {
  /** What stands for the value in the reference. */
  readonly value: string;
  readonly kind: "text" | "number" | "switch" | "date";
  readonly default?: string;
  readonly help: string;
}

/** The key of a user's setting. */
export type UserFieldName = keyof typeof USER_FIELDS;

/** Every setting of a user, in the order of {@link USER_FIELDS}. */
export const USER_FIELD_NAMES = Object.keys(USER_FIELDS) as readonly UserFieldName[];

/** What was written for one user, as text. */
export interface RawUser {
  readonly name: string;
  readonly settings: Readonly<Partial<Record<UserFieldName, string>>>;
}
