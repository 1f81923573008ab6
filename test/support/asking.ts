import { randomBytes } from "node:crypto";
import type { TestTransport } from "./packets.ts";
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
