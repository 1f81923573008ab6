import { randomBytes } from "node:crypto";
import type { TestTransport } from "./packets.ts";
import type { Program } from "./proxy.ts";
import { RawClient } from "./raw-client.ts";

/** How long a first answer may take, in milliseconds: clients of Telegram give up after 5 s at the earliest. */
export const FIRST_ANSWER_MS = 4_000;

/** Where a client finds the proxy. */
export interface Reachable {
  readonly port: number;
  readonly secret: Uint8Array;
}

/** What a client asks for. */
export interface Question {
  /** As in the init: negative = media. */
  readonly dcId?: number;
  readonly transport?: TestTransport;
  /** Bytes of its one packet. */
  readonly size?: number;
  readonly limitMs?: number;
}

/** Opens a client, and has its first packet echoed. The client is the caller's. */
export async function openAnswered(proxy: Reachable, question: Question = {}): Promise<RawClient> {
  const { dcId = 2, transport = "intermediate", size = 40, limitMs = FIRST_ANSWER_MS } = question;
  const { port, secret } = proxy;
  const client = await RawClient.open({ port, secret, dcId, transport });
  try {
    await echoOnce(client, size, limitMs);
    return client;
  } catch (error) {
    client[Symbol.dispose]();
    throw error;
  }
}

/** Has one packet of a client echoed. @throws {Error} When something else comes back, or nothing in time. */
export async function echoOnce(client: RawClient, size = 40, limitMs = FIRST_ANSWER_MS): Promise<void> {
  const payload = new Uint8Array(randomBytes(size));
  client.sendPacket(payload);
  const answer = await client.readPacket(limitMs);
  if (Buffer.compare(answer.payload, payload) !== 0) throw new Error("The echo is another packet");
}

/** Has the first packet of a client echoed, and leaves. */
export async function ask(proxy: Reachable, question?: Question): Promise<void> {
  (await openAnswered(proxy, question))[Symbol.dispose]();
}

/**
 * Waits for the end of a session, and returns the routes that were opened for it, in that order, as the log of a proxy
 * with `-v` has them. Sessions are numbered from 1.
 *
 * The proxy's own word counts: on a busy machine, what it had begun for one client may reach a stub long after that
 * was served.
 */
export async function routesOpened(proxy: Program, session: number): Promise<string[]> {
  await proxy.logged(new RegExp(`session ended session=${session} `));
  const lines = proxy.stderr.matchAll(new RegExp(` opening .* session=${session} .*route=(\\S+)`, "g"));
  return [...lines].map(([, route = ""]) => route);
}
