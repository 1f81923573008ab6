import { CipherTransform } from "../../channel/transform.ts";
import type { Cancel } from "../../core/cancel.ts";
import { sealServerInit } from "../../crypto/obfuscated2-ciphers.ts";
import type { WebSocketChannel } from "../../net/websocket-channel.ts";
import type { WebSocketDialer, WebSocketEndpoint } from "../../net/websocket-dial.ts";
import { formatDcId, type Target } from "../../protocol/mtproto/dc.ts";
import {
  type DcAddress,
  TELEGRAM_PORT,
  webSocketDc,
  webSocketHost,
  webSocketPath,
} from "../../protocol/mtproto/dc-addresses.ts";
import { PacketFramer, type Scratch } from "../packet-framer.ts";
import type { WarmableRoute } from "../pool.ts";
import type { Upstream } from "../route.ts";

/**
 * The route of Telegram's own web apps: `wss://kwsN[-1].web.telegram.org/apiws`.
 *
 * Every data centre has two names, one of them meant for media. This is one route for each of the two
 * choices, `preferred` and `alternate`, so that the chain can try them like any other routes.
 */
export class DirectWsRoute implements WarmableRoute {
  readonly id = "direct-ws";
  readonly #name: "preferred" | "alternate";
  readonly #dialer: WebSocketDialer;
  readonly #addresses: ReadonlyMap<number, DcAddress>;
  readonly #scratch: Scratch;

  constructor(options: {
    readonly name: "preferred" | "alternate";
    readonly dialer: WebSocketDialer;
    /** By dc number. Data centres that are not in it go by DNS; 203 goes where 2 goes. */
    readonly addresses: ReadonlyMap<number, DcAddress>;
    readonly scratch: Scratch;
  }) {
    this.#name = options.name;
    this.#dialer = options.dialer;
    this.#addresses = options.addresses;
    this.#scratch = options.scratch;
  }

  endpoint(target: Target): string {
    const { serverName, address, port } = this.#endpoint(target);
    const name = target.test ? `${serverName} (test)` : serverName;
    const where = address === undefined ? name : `${name} at ${address}`;
    return port === TELEGRAM_PORT ? where : `${where}, port ${port}`;
  }

  async open(target: Target, signal: Cancel): Promise<Upstream> {
    const channel = await this.dial(target, signal);
    return this.start(channel, target, { warm: false });
  }

  dial(target: Target, signal: Cancel): Promise<WebSocketChannel> {
    return this.#dialer.dial(this.#endpoint(target), signal);
  }

  start(channel: WebSocketChannel, target: Target, { warm }: { readonly warm: boolean }): Upstream {
    const { bytes, outbound, inbound } = sealServerInit({
      transport: target.transport,
      dcId: formatDcId(target),
    });
    channel.write(bytes);
    const up = new PacketFramer(outbound, target.transport, this.#scratch);
    return { channel, link: { up, down: new CipherTransform(inbound) }, warm };
  }

  #endpoint(target: Target): WebSocketEndpoint {
    const pinned = this.#addresses.get(target.dc) ?? this.#addresses.get(webSocketDc(target.dc));
    return {
      serverName: webSocketHost(target, this.#name),
      address: pinned?.ip,
      port: pinned?.port ?? TELEGRAM_PORT,
      path: webSocketPath(target),
    };
  }
}
