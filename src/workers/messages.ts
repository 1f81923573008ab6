import type { RefusalReason } from "../core/events.ts";

/**
 * What a supervisor and its workers say to each other, as JSON over Bun's IPC: batches, in order.
 *
 * After an upgrade a rolling restart runs workers of another version than the supervisor's. They tell by
 * {@link PROTOCOL} whether they understand each other.
 */
export const PROTOCOL = 1;

/** What a user has moved since it was last said. */
export interface UsedBytes {
  readonly user: string;
  readonly up: number;
  readonly down: number;
}

/** The first thing that a worker hears. */
export interface StartMessage {
  readonly type: "start";
  readonly protocol: number;
  /** Of its slot: 0 and up. */
  readonly index: number;
  /** Of the listening sockets that it has inherited, by slot: they are descriptors from here on. */
  readonly firstFd: number;
  readonly port: number;
  /** Of all workers. */
  readonly count: number;
  readonly settings: unknown;
}

/** From the supervisor to a worker. */
export type ToWorker =
  | StartMessage
  /** The settings have changed; to be answered with `reloaded`. */
  | { readonly type: "reload"; readonly id: number; readonly settings: unknown }
  /** The answer to `arrive`. */
  | { readonly type: "arrived"; readonly visit: number; readonly refused?: RefusalReason }
  /** The answer to `enter`. `rate`: bytes per second, for which it needs leases. */
  | {
      readonly type: "entered";
      readonly visit: number;
      readonly refused?: RefusalReason;
      readonly rate?: number;
    }
  /** The answer to `claim`. */
  | { readonly type: "claimed"; readonly id: number; readonly fresh: boolean }
  /** So many bytes of a user's rate may be spent. */
  | { readonly type: "leased"; readonly user: string; readonly bytes: number }
  /** A user has another rate, in bytes per second, or none; also those who are connected. */
  | { readonly type: "rate"; readonly user: string; readonly rate?: number }
  /** The sessions of these users have to end. */
  | { readonly type: "revoke"; readonly users: readonly string[] }
  /** To be answered with `used`, if there is anything, and then with `figures`. */
  | { readonly type: "collect"; readonly id: number }
  /** Accept also, or not any more, from the socket of another slot, whose worker is down. */
  | { readonly type: "adopt" | "abandon"; readonly index: number }
  /** Accept nobody any more, let sessions end for so long, then end. */
  | { readonly type: "drain"; readonly ms: number }
  /** As `drain`, for the end of the program: those that are not connected end at once. */
  | { readonly type: "stop"; readonly graceMs: number };

/** From a worker to its supervisor. */
export type FromWorker =
  | { readonly type: "ready"; readonly protocol: number }
  /** Somebody else has told it to end: it accepts nobody any more, and ends when its sessions have. */
  | { readonly type: "leaving" }
  /** It cannot start; it ends by itself. */
  | { readonly type: "failed"; readonly message: string; readonly hint?: string }
  | { readonly type: "reloaded"; readonly id: number; readonly error?: string }
  | { readonly type: "arrive"; readonly visit: number; readonly address: string }
  /** `address`: it has not arrived by a message of its own. */
  | { readonly type: "enter"; readonly visit: number; readonly user: string; readonly address?: string }
  /** A user without limits has come in where addresses have none: it is counted, and not answered. */
  | { readonly type: "came"; readonly visit: number; readonly user: string; readonly address: string }
  | { readonly type: "leave"; readonly visit: number }
  | { readonly type: "claim"; readonly id: number; readonly random: string }
  | { readonly type: "lease"; readonly user: string; readonly bytes: number }
  | { readonly type: "used"; readonly users: readonly UsedBytes[] }
  | { readonly type: "log"; readonly records: readonly unknown[] }
  /** Now and then without being asked: `id` 0. */
  | { readonly type: "figures"; readonly id: number; readonly figures: unknown; readonly process: unknown };
