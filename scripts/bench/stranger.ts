import type { Socket } from "bun";
import { type FlightShape, measureFlight } from "./fake-tls-stream.ts";

/** How long an answer may take, in milliseconds. */
const PATIENCE_MS = 10_000;
/** A flight is over when nothing has come for so long, in milliseconds. */
const QUIET_MS = 300;

/** What came back to a ClientHello, and when: microseconds from when the kernel was given its last byte. */
export interface Answer {
  readonly firstByteUs: number;
  readonly lastByteUs: number;
  readonly bytes: Buffer;
}

/**
 * Sends a ClientHello to a port of loopback, and reads the answer until it has `records` records.
 *
 * @throws {Error} When the connection ends first, or the answer takes longer than 10 seconds.
 */
export function ask(port: number, hello: Buffer, records: number): Promise<Answer> {
  return exchange(port, hello, (bytes) => measureFlight(bytes).types.length >= records);
}

/** Returns how a server answers `hello`: the records that come until it waits. */
export async function learnFlight(port: number, hello: Buffer): Promise<FlightShape> {
  const { bytes } = await exchange(port, hello, () => false);
  return measureFlight(bytes);
}

async function exchange(port: number, hello: Buffer, isOver: (bytes: Buffer) => boolean): Promise<Answer> {
  const over = Promise.withResolvers<void>();
  over.promise.catch(() => {}); // it may fail before anybody waits
  let timer = setTimeout(() => over.reject(new Error("no answer to a hello")), PATIENCE_MS);
  let sentAt = 0;
  let firstAt = 0;
  let lastAt = 0;
  let bytes = Buffer.alloc(0);
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      open(opened: Socket) {
        opened.setNoDelay(true);
        // Before, not after: the kernel may let the server go on, up to its answer, before the call returns.
        sentAt = performance.now();
        opened.write(hello);
      },
      data(_, chunk: Buffer) {
        lastAt = performance.now();
        if (bytes.length === 0) firstAt = lastAt;
        bytes = Buffer.concat([bytes, chunk]);
        clearTimeout(timer);
        timer = setTimeout(() => over.resolve(), QUIET_MS);
        if (isOver(bytes)) over.resolve();
      },
      close: () =>
        over.reject(new Error(`the connection was closed after ${bytes.length} bytes of the answer`)),
      error: (_, error) => over.reject(error),
    },
  });
  try {
    await over.promise;
  } finally {
    clearTimeout(timer);
    socket.terminate();
  }
  return { firstByteUs: (firstAt - sentAt) * 1000, lastByteUs: (lastAt - sentAt) * 1000, bytes };
}
