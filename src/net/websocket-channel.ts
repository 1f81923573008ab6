import type { Channel, ChannelSink } from "../channel/channel.ts";
import { RouteError } from "../core/errors.ts";
import type { Drainable, DrainPoller } from "./drain-poller.ts";

/** Bytes that may arrive before somebody attaches. A server that speaks first is not Telegram's. */
const UNATTACHED_LIMIT = 64 * 1024;

/** A ping that is not answered within this time is overdue, in milliseconds. */
const PONG_TIMEOUT_MS = 5_000;

/** How long the server must be quiet before an ended channel is closed, in milliseconds. */
const QUIET_BEFORE_CLOSE_MS = 1_000;

const CLOSE_NORMAL = 1000;

/** A WebSocket that knows its channel, so that one set of listeners serves all of them. */
type OwnedWebSocket = WebSocket & { channel?: WebSocketChannel };

/**
 * An open Bun WebSocket as a {@link Channel}: one `write` is one binary message, arriving messages are chunks.
 *
 * A WebSocket cannot half-close, and Bun drops what the server sends after our close frame. So `end` only
 * closes when the server has been quiet for a second: it then has nothing left to answer.
 */
export class WebSocketChannel implements Channel, Drainable {
  /** When it opened, `Date.now()`. */
  readonly openedAt = Date.now();
  readonly #socket: WebSocket;
  readonly #poller: DrainPoller;
  readonly #highWater: number;
  #sink: ChannelSink | undefined;
  #early: Uint8Array[] | undefined;
  #earlyBytes = 0;
  #ending = false;
  /** While ending: something came since the last look. */
  #heard = false;
  #quietTimer: ReturnType<typeof setTimeout> | undefined;
  #polled = false;
  /** When the unanswered ping was sent, `Date.now()`. */
  #pingedAt: number | undefined;
  #pongSeen = false;
  #closed: { readonly error: Error | undefined } | undefined;

  /**
   * @param socket Open, with `binaryType` `nodebuffer`. Its listeners are replaced.
   * @param highWater Queued bytes from which on the channel is congested; it drains at a quarter of that.
   */
  constructor(socket: WebSocket, poller: DrainPoller, highWater: number) {
    this.#socket = socket;
    this.#poller = poller;
    this.#highWater = highWater;
    (socket as OwnedWebSocket).channel = this;
    socket.onmessage = socketOnMessage;
    socket.onclose = socketOnClose;
    socket.onerror = null;
  }

  /** Whether it is open: no end in sight from either side. */
  get open(): boolean {
    return this.#closed === undefined && this.#socket.readyState === WebSocket.OPEN;
  }

  /** It has answered a ping. */
  get pongSeen(): boolean {
    return this.#pongSeen;
  }

  get answersPings(): boolean {
    return true;
  }

  get unanswered(): boolean {
    return this.#pingedAt !== undefined;
  }

  /** A ping of it was not answered in time. */
  get pongMissing(): boolean {
    return this.#pingedAt !== undefined && Date.now() - this.#pingedAt > PONG_TIMEOUT_MS;
  }

  get queuedBytes(): number {
    return this.#closed === undefined ? this.#socket.bufferedAmount : 0;
  }

  attach(sink: ChannelSink): void {
    this.#sink = sink;
    const early = this.#early;
    if (early === undefined && this.#closed === undefined) return;
    this.#early = undefined;
    queueMicrotask(() => {
      if (this.#earlyBytes > UNATTACHED_LIMIT) this.#socket.resume();
      for (const chunk of early ?? []) sink.onChunk(chunk);
      if (this.#closed !== undefined) sink.onClose(this.#closed.error);
    });
  }

  write(bytes: Uint8Array): void {
    if (this.#ending || this.#closed !== undefined) return;
    this.#socket.send(bytes);
  }

  get congested(): boolean {
    if (this.#socket.bufferedAmount <= this.#highWater) return false;
    if (!this.#polled && this.#closed === undefined) {
      this.#polled = true;
      this.#poller.watch(this);
    }
    return true;
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
    this.#closeWhenQuiet();
  }

  close(): void {
    if (this.#closed !== undefined) return;
    this.#ending = true;
    clearTimeout(this.#quietTimer);
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.close(CLOSE_NORMAL);
  }

  /** A WebSocket that breaks is all that its peer can see. */
  reset(): void {
    this.destroy();
  }

  destroy(): void {
    if (this.#closed === undefined) this.#socket.terminate();
  }

  /**
   * Sends a ping. A peer that has answered one before, but not the last, is dead and is dropped; one that
   * never answers pings is left to the idle limit.
   */
  ping(): void {
    if (this.#closed !== undefined || this.#ending) return;
    if (this.#socket.isPaused || this.#socket.bufferedAmount > 0) {
      // A stall on either side holds pongs up, or the ping itself: silence then means nothing.
      this.#pingedAt = undefined;
      return;
    }
    if (this.#overdue) {
      this.#fail(
        new RouteError("TIMEOUT", "The data centre's side of the WebSocket no longer answers pings"),
      );
      return;
    }
    if (this.#pingedAt !== undefined) return;
    this.#pingedAt = Date.now();
    this.#socket.addEventListener("pong", socketOnPong, { once: true });
    this.#socket.ping();
  }

  checkDrained(): boolean {
    if (this.#closed === undefined && this.#socket.bufferedAmount > this.#highWater / 4) return false;
    this.#polled = false;
    if (this.#closed === undefined) this.#sink?.onDrain();
    return true;
  }

  /** Called by the socket's listener only. */
  onMessage(data: unknown): void {
    // Telegram sends no text; nothing else arrives with `nodebuffer`.
    if (!(data instanceof Uint8Array)) return;
    this.#heard = true;
    if (this.#sink !== undefined) this.#sink.onChunk(data);
    else this.#keepEarly(data);
  }

  /** Called by the socket's listener only. */
  onPong(): void {
    this.#pingedAt = undefined;
    this.#pongSeen = true;
  }

  /** Called by the socket's listener only. */
  onClose(code: number): void {
    if (this.#closed !== undefined) return;
    const clean = code === CLOSE_NORMAL || code === 1001 || code === 1005 || this.#ending;
    this.#settle(clean ? undefined : new RouteError("CLOSED", `The WebSocket was closed with code ${code}`));
  }

  #closeWhenQuiet(): void {
    this.#heard = false;
    this.#quietTimer = setTimeout(() => {
      if (this.#heard || this.#socket.isPaused || this.#socket.bufferedAmount > 0) this.#closeWhenQuiet();
      else this.close();
    }, QUIET_BEFORE_CLOSE_MS);
  }

  get #overdue(): boolean {
    return this.#pongSeen && this.pongMissing;
  }

  #keepEarly(chunk: Uint8Array): void {
    this.#early ??= [];
    this.#early.push(chunk);
    this.#earlyBytes += chunk.length;
    if (this.#earlyBytes > UNATTACHED_LIMIT) this.#socket.pause();
  }

  #fail(error: Error): void {
    this.#settle(error);
    this.#socket.terminate();
  }

  #settle(error: Error | undefined): void {
    this.#closed = { error };
    clearTimeout(this.#quietTimer);
    this.#poller.forget(this);
    this.#sink?.onClose(error);
  }
}

function socketOnMessage(this: WebSocket, event: MessageEvent): void {
  (this as OwnedWebSocket).channel?.onMessage(event.data);
}

function socketOnClose(this: WebSocket, event: CloseEvent): void {
  (this as OwnedWebSocket).channel?.onClose(event.code);
}

function socketOnPong(this: WebSocket): void {
  (this as OwnedWebSocket).channel?.onPong();
}
