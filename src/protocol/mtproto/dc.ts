import type { Transport } from "./transport.ts";

/** The data centres that there are: five, and 203, which serves media of DC 2. */
export const DC_NUMBERS = [1, 2, 3, 4, 5, 203] as const;

/** The data centres of the test environment. */
export const TEST_DC_NUMBERS = [1, 2, 3] as const;

/** Where a client goes whose dc id names no data centre (TDLib sends random bytes when it has none yet). */
export const DEFAULT_DC = 2;

const TEST_OFFSET = 10_000;

/** What a client asks for: a data centre, and how it will speak to it. */
export interface Target {
  /** 1-5 or 203; 1-3 on the test environment. */
  readonly dc: number;
  /** A connection for files: served by other front ends than messages are. */
  readonly media: boolean;
  /** The test environment. */
  readonly test: boolean;
  readonly transport: Transport;
}

/** A target without the client's transport: what routes, pools and cooldowns are told apart by. */
export type DcTarget = Omit<Target, "transport">;

/**
 * Returns the data centre that a dc id names.
 *
 * The id is the signed 16-bit number at offset 60 of the init: negative = media, magnitude 10000 and more =
 * test environment. An unknown number becomes {@link DEFAULT_DC}, since it is no proof of an attack.
 */
export function parseDcId(id: number): DcTarget {
  const magnitude = Math.abs(id);
  const test = magnitude >= TEST_OFFSET;
  const number = test ? magnitude - TEST_OFFSET : magnitude;
  const known: readonly number[] = test ? TEST_DC_NUMBERS : DC_NUMBERS;
  return known.includes(number)
    ? { dc: number, media: id < 0, test }
    : { dc: DEFAULT_DC, media: false, test: false };
}

/** Returns the dc id for `target`: the inverse of {@link parseDcId}. */
export function formatDcId({ dc, media, test }: DcTarget): number {
  const magnitude = test ? dc + TEST_OFFSET : dc;
  return media ? -magnitude : magnitude;
}

/** Names a target for a person: `DC 4 media`, `test DC 2`. */
export function describeTarget({ dc, media, test }: DcTarget): string {
  return `${test ? "test " : ""}DC ${dc}${media ? " media" : ""}`;
}
