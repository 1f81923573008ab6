import { describe, expect, it } from "bun:test";
import { randomBytes, randomInt } from "node:crypto";
import { createServer, type Server } from "node:net";
import { FakeTlsClient } from "../support/fake-tls-client.ts";
import { buildHello, HELLO_SHAPES } from "../support/fake-tls-hello.ts";
import { Gate } from "../support/gate.ts";
import { poll } from "../support/home.ts";
import { COVER_DOMAIN, look } from "../support/look.ts";
import { concat } from "../support/packets.ts";
import { type ProcessFigures, readFigures } from "../support/process-figures.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { portOf } from "../support/upgrade-server.ts";

const LINUX = process.platform === "linux";
if (!LINUX) console.warn("what fuzzed hellos leave behind is not tested: there is no /proc here");

const WARM_UP = 2_000;
const HELLOS = 10_000;
const AT_ONCE = 40;
/** Of each shape. */
const BASES = 20;
const TEST_LIMIT_MS = 240_000;
const VISIT_LIMIT_MS = 30_000;
const CALM_LIMIT_MS = 45_000;
const SPARE_DESCRIPTORS = 4;
const MIB = 1024 * 1024;
const GROWTH_LIMIT_BYTES = 32 * MIB;
const ANSWER = "only the site says this";
const RECORD_HEADER = 5;
/** The last bytes of the random: with others, a right digest is that of another time. */
const TIME = { from: RECORD_HEADER + 6 + 28, to: RECORD_HEADER + 6 + 32 } as const;

/** Listens, says the same to everybody at once, and reads to the end. */
async function startSink(): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => {}); // who has seen enough may leave
    socket.resume();
    socket.end(ANSWER);
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen({ host: "127.0.0.1", port: 0, backlog: 1024 }, resolve);
  await promise;
  return server;
}

/** Makes a hello wrong in one to three ways. */
function fuzz(base: Uint8Array): Uint8Array {
  let bytes: Uint8Array = base.slice();
  for (let count = randomInt(1, 4); count > 0; count -= 1) {
    const mutate = MUTATIONS[randomInt(MUTATIONS.length)];
    bytes = mutate?.(bytes) ?? bytes;
  }
  // Whatever became of it, it must not be what a client has sent, with another time or something after it.
  const start = bytes.slice(0, base.length);
  if (start.length >= TIME.to) start.set(base.subarray(TIME.from, TIME.to), TIME.from);
  if (Buffer.compare(start, base) === 0) flip(bytes.subarray(0, base.length));
  return bytes;
}

const MUTATIONS: readonly ((bytes: Uint8Array) => Uint8Array)[] = [
  flip,
  flip,
  // A length, or anything else of two bytes.
  (bytes) => {
    const at = anywhere(bytes, 2);
    bytes[at] = randomInt(256);
    bytes[at + 1] = randomInt(256);
    return bytes;
  },
  // One of the lengths of the record and the message.
  (bytes) => {
    const at = [3, 4, 6, 7, 8][randomInt(5)] ?? 3;
    if (at < bytes.length) bytes[at] = ((bytes[at] ?? 0) + randomInt(1, 256)) & 0xff;
    return bytes;
  },
  // Nothing after a place.
  (bytes) => bytes.slice(0, randomInt(1, Math.max(2, bytes.length))),
  // A piece twice, as an extension would be.
  (bytes) => {
    const [from, length] = [anywhere(bytes, 1), randomInt(1, 200)];
    return concat(bytes.subarray(0, from + length), bytes.subarray(from));
  },
  // A piece less.
  (bytes) => {
    const from = anywhere(bytes, 1);
    return concat(bytes.subarray(0, from), bytes.subarray(from + randomInt(1, 200)));
  },
  // A piece of noise.
  (bytes) => {
    const at = anywhere(bytes, 1);
    const noise = new Uint8Array(randomBytes(randomInt(1, 64)));
    bytes.set(noise.subarray(0, bytes.length - at), at);
    return bytes;
  },
];

/** Changes a bit, but none of the time. */
function flip(bytes: Uint8Array): Uint8Array {
  const at = anywhere(bytes, 1);
  const safe = at >= TIME.from && at < TIME.to ? 0 : at;
  bytes[safe] = (bytes[safe] ?? 0) ^ (1 << randomInt(8));
  return bytes;
}

function anywhere(bytes: Uint8Array, width: number): number {
  return randomInt(Math.max(1, bytes.length - width));
}

/** Waits until there is no connection, and no more sockets than `atMost`; returns what is held then. */
async function calm(proxy: ProxyProcess, atMost = Number.POSITIVE_INFINITY): Promise<ProcessFigures> {
  let last: ProcessFigures | undefined;
  const look = (): ProcessFigures | undefined => {
    last = readFigures(proxy.pid);
    return Object.keys(last.connections).length === 0 && last.sockets <= atMost ? last : undefined;
  };
  return poll(look, "the end of all connections", CALM_LIMIT_MS).catch((cause: unknown) => {
    throw new Error(`something is left of ${atMost} sockets: ${JSON.stringify(last)}`, { cause });
  });
}

describe(`of ${HELLOS} fuzzed hellos`, () => {
  it.skipIf(!LINUX)(
    "none gets a byte that is not the site's, and nothing of them stays",
    async () => {
      const sink = await startSink();
      await using proxy = await ProxyProcess.start({
        args: ["--fake-tls-domain", COVER_DOMAIN, "--mask-host", `127.0.0.1:${portOf(sink)}`],
      });
      const { port, secret } = proxy;
      const bases = Array.from({ length: BASES * HELLO_SHAPES.length }, (_, index) =>
        buildHello({
          shape: HELLO_SHAPES[index % HELLO_SHAPES.length] ?? "minimal",
          secret: index % 2 === 0 ? secret : new Uint8Array(randomBytes(16)),
          serverName: COVER_DOMAIN,
          records: 1 + (index % 3),
        }),
      );
      const others = new Map<string, string>();
      const send = async (hellos: number): Promise<void> => {
        const gate = new Gate(AT_ONCE);
        const visits = Array.from({ length: hellos }, (_, number) =>
          gate.pass(async () => {
            const bytes = fuzz(bases[number % bases.length]?.bytes ?? new Uint8Array(1));
            const { received, end } = await look(port, (visitor) => visitor.write(bytes), {
              patienceMs: VISIT_LIMIT_MS,
              aftermathMs: 0,
            });
            const text = new TextDecoder("latin1").decode(received);
            const shown = `${text === ANSWER ? text : received.toHex()}, ${end}`;
            if (shown !== `${ANSWER}, fin`) others.set(shown.slice(0, 60), bytes.toHex());
          }),
        );
        await Promise.all(visits);
      };
      await proxy.logged(/does not answer with TLS/); // the sink speaks none
      const fresh = await calm(proxy);
      await send(WARM_UP);
      const { residentBytes } = await calm(proxy, fresh.sockets);
      await send(HELLOS);
      expect([...others]).toEqual([]);
      const after = await calm(proxy, fresh.sockets);
      expect(after.descriptors).toBeLessThanOrEqual(fresh.descriptors + SPARE_DESCRIPTORS);
      expect((after.residentBytes - residentBytes) / MIB).toBeLessThan(GROWTH_LIMIT_BYTES / MIB);
      using client = await FakeTlsClient.connect({ port, secret, hello: { serverName: COVER_DOMAIN } });
      await client.sendHello();
      await client.readFlight();
      expect(proxy.stderr).not.toContain("a bug");
      sink.close();
    },
    TEST_LIMIT_MS,
  );
});
