import { FIELD_NAMES, FIELDS, type FieldName, type RawConfig } from "./fields.ts";
import type { RawUser } from "./user-fields.ts";

/** What differs between two configurations, as they were written. */
export interface ConfigChanges {
  /** Settings that can be applied at once. */
  readonly live: readonly FieldName[];
  /** Settings that take effect at the next start only. */
  readonly atStart: readonly FieldName[];
  /** Users of the file, by name. A user with another secret is both: removed and added. */
  readonly users: {
    readonly added: readonly string[];
    readonly removed: readonly string[];
    readonly changed: readonly string[];
  };
}

/** Compares what is in use with what was read anew. Values that mean the same in other words differ. */
export function compareConfigs(before: RawConfig, after: RawConfig): ConfigChanges {
  const changed = FIELD_NAMES.filter((name) => !isSame(before[name], after[name]));
  const old = new Map((before.users ?? []).map((user) => [user.name, user]));
  const now = new Map((after.users ?? []).map((user) => [user.name, user]));
  const renewed = [...now.values()].filter((user) => {
    const earlier = old.get(user.name);
    return earlier !== undefined && earlier.settings.secret !== user.settings.secret;
  });
  const isRenewed = (user: RawUser): boolean => renewed.some(({ name }) => name === user.name);
  return {
    live: changed.filter((name) => FIELDS[name].live),
    atStart: changed.filter((name) => !FIELDS[name].live),
    users: {
      added: namesOf([...now.values()].filter((user) => !old.has(user.name) || isRenewed(user))),
      removed: namesOf([...old.values()].filter((user) => !now.has(user.name) || isRenewed(user))),
      changed: namesOf(
        [...now.values()].filter((user) => {
          const earlier = old.get(user.name);
          return earlier !== undefined && !isRenewed(user) && !isSame(sorted(earlier), sorted(user));
        }),
      ),
    },
  };
}

/** A switch that is turned off and one that is not there are the same, and so are lists without a part. */
function isSame(one: readonly unknown[] = [], other: readonly unknown[] = []): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function sorted({ settings }: RawUser): readonly unknown[] {
  return Object.entries(settings).toSorted(([one], [other]) => (one < other ? -1 : 1));
}

function namesOf(users: readonly RawUser[]): string[] {
  return users.map(({ name }) => name);
}
