import type { ConfigIssue } from "../core/errors.ts";
import type { FieldName } from "./fields.ts";
import type { Origin, Origins } from "./origin.ts";
import type { RawUser } from "./user-fields.ts";

/** What one source says: flags, environment or file. */
export interface Written {
  /** A field that is not there is not mentioned; a switch with an empty list is turned off. */
  readonly fields: ReadonlyMap<FieldName, readonly string[]>;
  readonly users: readonly RawUser[];
  readonly origins: Origins;
  readonly issues: readonly ConfigIssue[];
  /** What the user should know; one line each. */
  readonly warnings: readonly string[];
}

/** Collects what a source says. */
export class WrittenBuilder implements Written {
  readonly fields = new Map<FieldName, readonly string[]>();
  readonly users: RawUser[] = [];
  readonly origins = new Map<string, Origin>();
  readonly issues: ConfigIssue[] = [];
  readonly warnings: string[] = [];

  set(name: FieldName, texts: readonly string[], origin: Origin): void {
    this.fields.set(name, texts);
    this.origins.set(name, origin);
  }

  refuse(path: string, message: string, hint?: string): void {
    this.issues.push({ path, message, ...(hint === undefined ? {} : { hint }) });
  }
}
