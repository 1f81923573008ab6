import { readFigures } from "./process-figures.ts";
import { RawClient, type RawClientOptions } from "./raw-client.ts";
import { SOON_MS } from "./waiting.ts";

const PING = Uint8Array.of(1, 2, 3, 4);

/** Opens a session through a proxy whose data centre sends packets back, and sends one there and back. */
export async function openSession(options: RawClientOptions): Promise<RawClient> {
  const client = await RawClient.open(options);
  try {
    await ping(client);
    return client;
  } catch (error) {
    client[Symbol.dispose]();
    throw error;
  }
}

/**
 * Opens `count` sessions, and more until each of `workers` has one: who accepts a connection is chance. Linux only.
 *
 * @param workers Their process ids. They have no connections of another kind.
 */
export async function openOnEach(
  workers: readonly number[],
  count: number,
  options: RawClientOptions,
): Promise<RawClient[]> {
  const clients = await Promise.all(Array.from({ length: count }, () => openSession(options)));
  const isIdle = (pid: number): boolean => readFigures(pid).connections["established"] === undefined;
  while (workers.some(isIdle)) clients.push(await openSession(options));
  return clients;
}

/** Sends a packet there and back. @throws {Error} When the session has ended. */
export async function ping(client: RawClient): Promise<void> {
  const before = client.received;
  client.sendPacket(PING);
  await client.until(() => client.received > before || isCut(client), "an answer");
  if (client.received === before) throw new Error("The session has ended");
  await client.readPacket(SOON_MS);
}

/** Opens a session, and tells whether it was served. */
export async function isServed(options: RawClientOptions): Promise<boolean> {
  using client = await RawClient.open(options);
  client.sendPacket(PING);
  await client.until(() => client.received > 0 || isCut(client), "an answer, or a refusal");
  return client.received > 0;
}

/** Waits until a session has ended. */
export function ending(client: RawClient, limitMs = SOON_MS): Promise<void> {
  return client.until(() => isCut(client), "the end of a session", limitMs);
}

/** Whether the proxy has ended a session. */
export function isCut(client: RawClient): boolean {
  return client.closed || client.ended;
}

/** Asks again and again until something holds, for what tells nobody that it changed. */
export async function eventually(
  holds: () => boolean | Promise<boolean>,
  what: string,
  limitMs = SOON_MS,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${limitMs} ms`);
    await Bun.sleep(10);
  }
}
