import type { Client } from "./client.ts";
import type { Random } from "./random.ts";
import { KIND } from "./wire.ts";

/** What a habit can do besides talking. */
export interface Life {
  readonly random: Random;
  /** Of those that stay, in milliseconds. */
  readonly longestMs: number;
  /** The load is being ended. */
  readonly over: boolean;
  /** Waits; less long when the load ends meanwhile. */
  sleep(ms: number): Promise<void>;
}

/** How somebody uses a session, up to before leaving. */
export interface Habit {
  readonly name: string;
  /** Of a hundred sessions at any time. */
  readonly share: number;
  /** It stops reading, or has its data centre do that. */
  readonly stalls?: true;
  /** It leaves when it likes: its end says nothing. */
  readonly fickle?: true;
  run(client: Client, life: Life): Promise<void>;
}

const KIB = 1024;

/** An app in the background. */
const idle: Habit = {
  name: "idle",
  share: 44,
  async run(client, life) {
    const until = performance.now() + life.random.between(0.3, 1) * life.longestMs;
    await echo(client, life);
    while (!life.over && performance.now() < until) {
      client.doing = "idle";
      await life.sleep(Math.min(life.random.between(10_000, 40_000), until - performance.now()));
      await echo(client, life);
    }
  },
};

/** An app in use. */
const chat: Habit = {
  name: "chat",
  share: 35,
  async run(client, life) {
    const until = performance.now() + life.random.between(0.05, 1) * life.longestMs;
    do {
      await echo(client, life);
      await life.sleep(life.random.between(500, 5_000));
    } while (!life.over && performance.now() < until);
  },
};

/** Files up and down. */
const files: Habit = {
  name: "files",
  share: 10,
  async run(client, life) {
    const until = performance.now() + life.random.between(0.02, 0.5) * life.longestMs;
    await echo(client, life);
    while (!life.over && performance.now() < until) {
      const length = life.random.length(4 * KIB, 1024 * KIB);
      client.doing = `moving ${length} bytes`;
      if (life.random.chance(0.6)) await client.ask({ kind: KIND.fetch, argument: length });
      else await client.ask({ kind: KIND.store, bodyLength: Math.min(length, 512 * KIB) });
      await life.sleep(life.random.between(1_000, 8_000));
    }
  },
};

/** A short one, as apps open them by the dozen. */
const visit: Habit = {
  name: "visit",
  share: 6,
  async run(client, life) {
    const times = Math.floor(life.random.between(1, 4));
    for (let time = 0; time < times && !life.over; time += 1) {
      await echo(client, life);
      await life.sleep(life.random.between(100, 2_000));
    }
  },
};

/** Leaves in the middle of something. */
const fickle: Habit = {
  name: "fickle",
  share: 2,
  fickle: true,
  async run(client, life) {
    const way = Math.floor(life.random.between(0, 4));
    if (way === 0) {
      client.sendInit(life.random.chance(0.5) ? 20 : 64);
    } else {
      // More than fits into the buffers between, or nothing but a first packet.
      const request =
        way === 1 ? { kind: KIND.fetch, argument: 1024 * KIB } : { kind: KIND.store, bodyLength: 400 };
      for (let count = way === 1 ? 3 : 1; count > 0; count -= 1) client.ask(request).catch(() => {});
    }
    await life.sleep(life.random.between(0, 1_500));
  },
};

/** Stops reading for a while, with much on its way to it. */
const slowClient: Habit = {
  name: "slow client",
  share: 2,
  stalls: true,
  async run(client, life) {
    await echo(client, life);
    client.doing = "not reading";
    const ms = life.random.between(1_000, 7_000);
    client.stopReading();
    const answers = Array.from({ length: 6 }, () =>
      client.ask({ kind: KIND.fetch, argument: life.random.length(64 * KIB, 1024 * KIB) }, ms),
    );
    const all = Promise.all(answers);
    all.catch(() => {}); // it may fail before anybody waits
    await life.sleep(ms);
    client.doing = "reading again";
    client.startReading();
    await all;
    await life.sleep(life.random.between(500, 3_000));
  },
};

/** Its data centre stops reading for a while, with much on its way to it. */
const slowDc: Habit = {
  name: "slow data centre",
  share: 1,
  stalls: true,
  async run(client, life) {
    await echo(client, life);
    client.doing = "writing to a data centre that does not read";
    const ms = Math.floor(life.random.between(1_000, 7_000));
    await client.ask({ kind: KIND.stall, argument: ms });
    const answers = Array.from({ length: 6 }, () =>
      client.ask({ kind: KIND.store, bodyLength: life.random.length(64 * KIB, 512 * KIB) }, ms),
    );
    await Promise.all(answers);
    await life.sleep(life.random.between(500, 3_000));
  },
};

/** All of them. */
export const HABITS: readonly Habit[] = [idle, chat, files, visit, fickle, slowClient, slowDc];

async function echo(client: Client, { random }: Life): Promise<void> {
  client.doing = "asking";
  await client.ask({ kind: KIND.echo, bodyLength: random.length(16, 2_000) });
}
