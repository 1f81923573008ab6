import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { join } from "node:path";

/** What the database in a configuration folder says that a user has moved, in bytes. Read by itself here, as SQL. */
export function keptUsage(home: { readonly path: string }, user: string): { up: number; down: number } {
  const path = join(home.path, "usage.db");
  if (!existsSync(path)) return { up: 0, down: 0 };
  using database = new Database(path);
  const row = database.query<{ up: number; down: number }, [string]>(
    "SELECT up, down FROM usage WHERE user = ?",
  );
  return row.get(user) ?? { up: 0, down: 0 };
}
