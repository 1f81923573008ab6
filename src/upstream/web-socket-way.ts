import { CipherTransform } from "../channel/transform.ts";
import type { Cancel } from "../core/cancel.ts";
import { sealServerInit } from "../crypto/obfuscated2-ciphers.ts";
import type { WebSocketChannel } from "../net/websocket-channel.ts";
import type { WebSocketDialer, WebSocketEndpoint } from "../net/websocket-dial.ts";
import { formatDcId, type Target } from "../protocol/mtproto/dc.ts";
import { TELEGRAM_PORT } from "../protocol/mtproto/dc-addresses.ts";
import { PacketFramer, type Scratch } from "./packet-framer.ts";
import type { WarmableWay } from "./pool.ts";
import type { RouteId, Upstream, WayAddress } from "./route.ts";

/** What the ways of all WebSocket routes share. */
export interface WebSocketWayDeps {
  readonly dialer: WebSocketDialer;
  readonly scratch: Scratch;
  /** See `Way.readRetryAfter`. */
  readonly readRetryAfter: (socket: WebSocketEndpoint) => Promise<number | undefined>;
}

/**
 * A way over a WebSocket: the init is the first message.
 *
 * `packets`: Telegram itself is behind it and wants one message per MTProto packet. `stream`: it is TCP
 * inside a WebSocket, and messages mean nothing.
 */
export class WebSocketWay implements WarmableWay {
  readonly route: RouteId;
  readonly endpoint: string;
  readonly group: string;
  readonly key: string;
  readonly #deps: WebSocketWayDeps;
  readonly #socket: WebSocketEndpoint;
  readonly #framing: "packets" | "stream";
  #asking: Promise<number | undefined> | undefined;

  constructor(
    options: {
      readonly route: RouteId;
      readonly endpoint: string;
      readonly group: string;
      readonly socket: WebSocketEndpoint;
      readonly framing: "packets" | "stream";
    },
    deps: WebSocketWayDeps,
  ) {
    this.route = options.route;
    this.endpoint = options.endpoint;
    this.group = options.group;
    this.#socket = options.socket;
    this.#framing = options.framing;
    this.#deps = deps;
    const { serverName, host, address, port, path } = options.socket;
    this.key = [serverName, host, address, port, path].join(" ");
  }

  get address(): WayAddress {
    const {
      serverName,
      host = serverName,
      address = serverName,
      port,
      path,
      subprotocol,
      token,
    } = this.#socket;
    const hostHeader = port === TELEGRAM_PORT ? host : `${host}:${port}`;
    return { host: address, port, webSocket: { serverName, hostHeader, path, subprotocol, token } };
  }

  async open(target: Target, signal: Cancel): Promise<Upstream> {
    return this.start(await this.dial(signal), target, { warm: false });
  }

  /** Many sessions may be refused at once: they ask together. */
  readRetryAfter(): Promise<number | undefined> {
    this.#asking ??= this.#deps.readRetryAfter(this.#socket).finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  dial(signal: Cancel): Promise<WebSocketChannel> {
    return this.#deps.dialer.dial(this.#socket, signal);
  }

  start(channel: WebSocketChannel, target: Target, { warm }: { readonly warm: boolean }): Upstream {
    const { bytes, outbound, inbound } = sealServerInit({
      transport: target.transport,
      dcId: formatDcId(target),
    });
    channel.write(bytes);
    const up =
      this.#framing === "packets"
        ? new PacketFramer(outbound, target.transport, this.#deps.scratch)
        : new CipherTransform(outbound);
    return { channel, link: { up, down: new CipherTransform(inbound) }, warm };
  }
}
