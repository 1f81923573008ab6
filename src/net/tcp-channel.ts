import { writevSync } from "node:fs";
import type { Socket, SocketHandler } from "bun";
import type { ChannelSink, GatherChannel } from "../channel/channel.ts";
import { concatBytes, release } from "../core/bytes.ts";

/** TCP keepalive: the first probe after this long without traffic, in milliseconds. */
const KEEPALIVE_DELAY_MS = 60_000;

/** Bytes that nobody listens to yet, from which on the socket is paused. */
const UNATTACHED_LIMIT = 64 * 1024;

/**
 * A Bun TCP socket as a {@link Channel}.
 *
 * Bun's `write` takes what the kernel takes and forgets the rest, so the rest is copied here and sent on
 * `drain`. The socket must be opened with `allowHalfOpen`, or the peer's FIN would drop our answer.
 */
export class TcpChannel implements GatherChannel {
  readonly #socket: Socket<TcpChannel | undefined>;
  readonly #highWater: number;
  #sink: ChannelSink | undefined;
  /** What arrived while nobody listened, oldest first. */
  #early: Uint8Array[] | undefined;
  #earlyBytes = 0;
  /** What the kernel did not take yet, oldest first. */
  #queue: Uint8Array[] = NOTHING;
  #queued = 0;
  #announceDrain = false;
  #ending = false;
  #resetting = false;
  /** A write has found the connection broken, after which Bun reports a clean end. */
  #broken = false;
  #destroying = false;
  #peerEnded = false;
  #closed: { readonly error: Error | undefined } | undefined;

  /** @param highWater Bytes in the queue from which on the channel is congested. */
  constructor(socket: Socket<TcpChannel | undefined>, highWater: number) {
    this.#socket = socket;
    this.#highWater = highWater;
    socket.data = this;
    socket.setNoDelay(true);
  }

  keepAlive(): void {
    this.#socket.setKeepAlive(true, KEEPALIVE_DELAY_MS);
  }

  attach(sink: ChannelSink): void {
    this.#sink = sink;
    if (this.#early === undefined && !this.#peerEnded && this.#closed === undefined) return;
    queueMicrotask(() => {
      this.#deliverEarly();
      if (this.#peerEnded && !this.#broken) sink.onEnd();
      if (this.#closed !== undefined) sink.onClose(this.#closed.error);
    });
  }

  /**
   * Takes the channel away from its sink and keeps `bytes`, which that sink read too far, for the next one.
   *
   * For what is spoken before the peer's own bytes come, such as a proxy's handshake.
   */
  unread(bytes: Uint8Array): void {
    this.#sink = undefined;
    if (bytes.length > 0) this.#keepEarly(bytes);
    // The sink may have paused it for reasons of its own.
    if (this.#earlyBytes < UNATTACHED_LIMIT) this.resume();
  }

  write(bytes: Uint8Array): void {
    if (this.#ending || this.#closed !== undefined) return;
    let sent = 0;
    if (this.#queue.length === 0) {
      sent = this.#socket.write(bytes);
      if (sent === bytes.length) return;
      if (sent < 0) {
        this.#broken = true; // `close` follows
        return;
      }
      this.#queue = [];
    }
    const rest = new Uint8Array(bytes.subarray(sent)); // not `slice`: a Buffer's does not copy
    this.#queue.push(rest);
    this.#queued += rest.length;
  }

  writeAll(parts: readonly Uint8Array[]): void {
    if (this.#ending || this.#closed !== undefined) return;
    let sent = GATHERS && this.#queue.length === 0 ? writeGathered(this.#socket, parts) : 0;
    for (const [index, part] of parts.entries()) {
      if (sent >= part.length) {
        sent -= part.length;
        continue;
      }
      // Through the socket, so that Bun watches for the moment when the rest can be sent.
      const rest = concatBytes([part.subarray(sent), ...parts.slice(index + 1)]);
      this.write(rest);
      release(rest);
      return;
    }
  }

  get congested(): boolean {
    const congested = this.#queued >= this.#highWater;
    if (congested) this.#announceDrain = true;
    return congested;
  }

  get queuedBytes(): number {
    return this.#queued;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    if (this.#ending || this.#closed !== undefined) return;
    this.#ending = true;
    if (this.#queue.length === 0) this.#socket.shutdown();
  }

  close(): void {
    this.end();
  }

  destroy(): void {
    if (this.#closed !== undefined) return;
    this.#destroying = true;
    // With our FIN on its way, a reset would take back what a slow peer has not read yet.
    if (this.#ending && this.#queue.length === 0) this.#socket.end();
    else this.#socket.terminate();
  }

  reset(): void {
    if (this.#closed !== undefined) return;
    this.#ending = true;
    this.#resetting = true;
    if (this.#queue.length === 0) this.#terminate();
  }

  /** TCP keepalive does this. */
  ping(): void {}

  get answersPings(): boolean {
    return false;
  }

  /** There is no way to ask. */
  get unanswered(): boolean {
    return true;
  }

  /** The peer has said its last. */
  get peerEnded(): boolean {
    return this.#peerEnded;
  }

  /** Called by {@link TCP_HANDLERS} only. */
  onData(chunk: Uint8Array): void {
    if (this.#sink !== undefined) this.#sink.onChunk(chunk);
    else this.#keepEarly(chunk);
  }

  /** Called by {@link TCP_HANDLERS} only. */
  onDrain(): void {
    while (this.#queue.length > 0) {
      const [first] = this.#queue;
      if (first === undefined) break;
      const sent = this.#socket.write(first);
      if (sent < 0) {
        this.#broken = true;
        return;
      }
      this.#queued -= sent;
      if (sent < first.length) {
        this.#queue[0] = first.subarray(sent);
        return;
      }
      release(first);
      this.#queue.shift();
    }
    if (this.#resetting) {
      this.#terminate();
      return;
    }
    if (this.#ending) this.#socket.shutdown();
    if (!this.#announceDrain) return;
    this.#announceDrain = false;
    this.#sink?.onDrain();
  }

  /** Called by {@link TCP_HANDLERS} only. */
  onPeerEnd(): void {
    this.#peerEnded = true;
    if (!this.#broken) this.#sink?.onEnd();
  }

  /** Called by {@link TCP_HANDLERS} only. */
  onClose(error: Error | undefined): void {
    if (this.#closed !== undefined) return;
    const cause =
      this.#broken && !this.#destroying ? (error ?? new Error("connection reset by peer")) : error;
    this.#closed = { error: cause };
    this.#queue = NOTHING;
    this.#queued = 0;
    // Bun reports a close of our own from inside `terminate`; sinks are only called from the event loop.
    if (this.#destroying) queueMicrotask(() => this.#sink?.onClose(cause));
    else this.#sink?.onClose(cause);
  }

  #terminate(): void {
    this.#destroying = true;
    this.#socket.terminate();
  }

  #keepEarly(chunk: Uint8Array): void {
    this.#early ??= [];
    this.#early.push(chunk);
    this.#earlyBytes += chunk.length;
    if (this.#earlyBytes >= UNATTACHED_LIMIT) this.pause();
  }

  #deliverEarly(): void {
    const sink = this.#sink;
    const early = this.#early;
    if (sink === undefined || early === undefined) return;
    const paused = this.#earlyBytes >= UNATTACHED_LIMIT;
    this.#early = undefined;
    this.#earlyBytes = 0;
    if (paused) this.resume(); // first: the sink may pause it again
    for (const chunk of early) sink.onChunk(chunk);
  }
}

const NOTHING: Uint8Array[] = [];

/** Elsewhere a socket is no file that can be written to. */
const GATHERS = process.platform !== "win32";

/** Writes to a socket past Bun, which cannot send several pieces at once; returns how many bytes were taken. */
function writeGathered(socket: object, parts: readonly Uint8Array[]): number {
  const fd = "fd" in socket && typeof socket.fd === "number" ? socket.fd : -1; // its types leave it out
  if (fd < 0) return 0;
  try {
    return writevSync(fd, parts as Uint8Array[]);
  } catch {
    return 0; // no room, or closed under us: the socket's own write finds out which
  }
}

/** Passes a Bun socket's events on to the channel in its `data`. One object serves all sockets. */
export const TCP_HANDLERS = {
  data(socket, chunk) {
    socket.data?.onData(chunk);
  },
  drain(socket) {
    socket.data?.onDrain();
  },
  end(socket) {
    socket.data?.onPeerEnd();
  },
  close(socket, error) {
    socket.data?.onClose(error);
  },
  error(socket, error) {
    socket.data?.onClose(error);
    socket.terminate();
  },
} satisfies SocketHandler<TcpChannel | undefined>;
