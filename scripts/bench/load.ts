import { LoadConnection, type LoadSink } from "./load-connection.ts";
import type { RunningProxy } from "./proxies.ts";
import type { Packet } from "./wire.ts";

/** How long anything may take that should take a moment, in milliseconds. */
const PATIENCE_MS = 30_000;

/** A set of client connections whose first fault fails the step that waits for them. */
export class Load implements LoadSink {
  readonly connections: LoadConnection[] = [];
  /** What is done with answers; steps change it as they go on. */
  onAnswer: (connection: LoadConnection, answer: Packet) => void = () => {};
  readonly #proxy: RunningProxy;
  readonly #fault = Promise.withResolvers<never>();

  constructor(proxy: RunningProxy) {
    this.#proxy = proxy;
    // A fault while nobody waits is reported to the next who does.
    this.#fault.promise.catch(() => {});
  }

  /** Opens connections, a few at a time so that no accept queue overflows. They have not sent a packet yet. */
  async open(count: number): Promise<void> {
    for (let opened = 0; opened < count; opened += 16) {
      await Promise.all(Array.from({ length: Math.min(16, count - opened) }, () => this.openOne()));
    }
  }

  async openOne(): Promise<LoadConnection> {
    const connection = new LoadConnection(this.#proxy, this);
    await connection.connect(this.#proxy.port);
    this.connections.push(connection);
    return connection;
  }

  /** Sends an echo on every connection, some at a time, and waits for all: sessions are then up. */
  async greet(greeting: { readonly kind: number; readonly bodyLength: number }): Promise<void> {
    const waiting = [...this.connections];
    let answered = 0;
    const all = Promise.withResolvers<void>();
    const next = (): void => waiting.pop()?.send(greeting);
    this.onAnswer = () => {
      answered += 1;
      if (answered === this.connections.length) all.resolve();
      next();
    };
    for (let started = 0; started < 16; started += 1) next();
    await this.wait(all.promise);
    this.onAnswer = () => {};
  }

  /**
   * Waits for `promise`, for at most half a minute.
   *
   * @throws {Error} On the fault of any connection, also an earlier one.
   */
  async wait<Value>(promise: Promise<Value>): Promise<Value> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new Error(`no answer for ${PATIENCE_MS / 1000} s`)),
      PATIENCE_MS,
    );
    try {
      return await Promise.race([this.#fault.promise, promise, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  onFault(error: Error): void {
    this.#fault.reject(error);
  }

  close(): void {
    for (const connection of this.connections) connection.close();
  }
}
