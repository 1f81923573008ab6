import { randomBytes } from "node:crypto";
import type { RawClient } from "./raw-client.ts";
import { isCut } from "./sessions.ts";

/** How much had been received, and when. */
interface Sample {
  /** `performance.now()`. */
  readonly at: number;
  readonly bytes: number;
}

const PACKET = 16 * 1024;
const PAUSE_MS = 4;

/** Sessions through which packets go there and back, until it is stopped: a few MB a second. */
export class Traffic {
  readonly #clients: readonly RawClient[];
  readonly #samples = new Map<RawClient, Sample[]>();
  readonly #done: Promise<unknown>;
  #running = true;

  constructor(clients: readonly RawClient[]) {
    this.#clients = clients;
    this.#done = Promise.all(clients.map((client) => this.#run(client)));
  }

  /** What a client had received at a moment of `performance.now()`, at least. */
  receivedAt(client: RawClient, moment: number): number {
    return this.#samples.get(client)?.findLast(({ at }) => at <= moment)?.bytes ?? 0;
  }

  /** What all had received at a moment. */
  totalAt(moment: number): number {
    return this.#clients.reduce((sum, client) => sum + this.receivedAt(client, moment), 0);
  }

  /** Sends nothing any more, and waits until what was sent has come back. */
  async stop(): Promise<void> {
    this.#running = false;
    await this.#done;
  }

  async #run(client: RawClient): Promise<void> {
    const samples: Sample[] = [];
    this.#samples.set(client, samples);
    const payload = randomBytes(PACKET);
    while (this.#running && !isCut(client)) {
      const before = client.received;
      client.sendPacket(payload);
      const done = (): boolean => client.received >= before + PACKET || isCut(client);
      await client.until(done, "a packet to come back", 20_000);
      samples.push({ at: performance.now(), bytes: client.received });
      await Bun.sleep(PAUSE_MS);
    }
  }
}
