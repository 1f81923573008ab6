import {
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  statSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { StartError } from "../core/errors.ts";
import type { Account } from "./privileges.ts";

/**
 * Gives what the program keeps in `folder` to `account`, as long as it is root's; makes the folder when it is missing.
 *
 * Who owns a folder can replace everything in it: one in which root has more than a few files is not given away.
 *
 * @param isOurs Tells by its name whether a file is one that the program writes.
 * @throws {StartError} `FILE`
 */
export function handOver(folder: string, account: Account, isOurs: (name: string) => boolean): void {
  const { uid, gid } = account;
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const give = (path: string): void => {
      const { uid: owner, nlink } = lstatSync(path);
      // A link to a file of somebody else must not give that away.
      if (owner === 0 && (nlink === 1 || path === folder)) lchownSync(path, uid, gid);
    };
    const names = readdirSync(folder);
    if (lstatSync(folder).isSymbolicLink()) {
      // Whoever made the link would choose what is given away.
      if (statSync(folder).uid !== uid) throw isLink(folder, account);
    } else {
      const others = names.filter((name) => !isOurs(name) && !HARMLESS.test(name));
      const other = others.find((name) => isOfSystem(join(folder, name)));
      if (other !== undefined && lstatSync(folder).uid === 0) throw tooMuch(folder, other, account);
      give(folder);
    }
    for (const name of names) if (isOurs(name)) give(join(folder, name));
  } catch (error) {
    if (error instanceof StartError) throw error;
    const why = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new StartError(
      "FILE",
      `Cannot give ${folder} to ${account.user}: ${why}`,
      "set TGWS_HOME to a folder of its own, for example /var/lib/tgws",
      error,
    );
  }
}

/** What the root of any disk has, and what an editor leaves while a file is open in it. */
const HARMLESS = /^(?:lost\+found|\..+\.sw[a-p])$/;

/** Whether it is root's, and a folder, a program or a hidden file, such as those in root's home. */
function isOfSystem(path: string): boolean {
  const status = lstatSync(path);
  if (status.uid !== 0) return false;
  return (
    status.isDirectory() || basename(path).startsWith(".") || (status.isFile() && (status.mode & 0o111) > 0)
  );
}

function tooMuch(folder: string, other: string, { user }: Account): StartError {
  return new StartError(
    "FILE",
    `Cannot give ${folder} to ${user}: there is more in it than tgws keeps, such as ${other}`,
    `set TGWS_HOME to a folder of its own, for example /var/lib/tgws, or say that it is meant: chown ${user} ${folder}`,
  );
}

function isLink(folder: string, { user }: Account): StartError {
  const target = realpathSync(folder);
  return new StartError(
    "FILE",
    `Cannot give ${folder} to ${user}: it is a link`,
    `set TGWS_HOME to where it leads, ${target}, or say that it is meant: chown ${user} ${target}`,
  );
}

/** Whether `account` can put another file in the place of this one, or write it. */
export function canReplace(path: string, { uid }: Account): boolean {
  return [path, dirname(path)].some((one) => statSync(one, { throwIfNoEntry: false })?.uid === uid);
}

/**
 * Gives one file to `account`, as long as it is root's or not there: then it is made.
 *
 * What is a link stays as it is. Who may write to its folder could have made it, and root would make or give away a
 * file of their choice.
 *
 * @throws {StartError} `FILE`
 */
export function handOverFile(path: string, { uid, gid, user }: Account): void {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;
  try {
    if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true) return;
    const file = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
    try {
      const { uid: owner, nlink } = fstatSync(file);
      if (owner === 0 && nlink === 1) fchownSync(file, uid, gid);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    const why = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new StartError(
      "FILE",
      `Cannot give ${path} to ${user}: ${why}`,
      "choose another file: --log-file",
      error,
    );
  }
}
