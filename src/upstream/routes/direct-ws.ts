import type { AddressBook, DomainPort } from "../../core/names.ts";
import type { DcTarget } from "../../protocol/mtproto/dc.ts";
import {
  type DcAddress,
  TELEGRAM_PORT,
  webSocketDc,
  webSocketHost,
  webSocketPath,
} from "../../protocol/mtproto/dc-addresses.ts";
import type { WarmableRoute } from "../pool.ts";
import { WaysByTarget } from "../route.ts";
import { WebSocketWay, type WebSocketWayDeps } from "../web-socket-way.ts";

/**
 * The route of Telegram's own web apps: `wss://kwsN[-1].web.telegram.org/apiws`.
 *
 * Every data centre has two names, one of them meant for media: two ways, the preferred one first. With a
 * front, the TLS handshake names that domain and only the Host header names Telegram (`fronted-ws`).
 */
export class DirectWsRoute implements WarmableRoute {
  readonly id: "direct-ws" | "fronted-ws";
  readonly #front: DomainPort | undefined;
  readonly #addresses: ReadonlyMap<number, DcAddress>;
  readonly #pins: AddressBook;
  readonly #deps: WebSocketWayDeps;
  readonly #ways = new WaysByTarget<WebSocketWay>();

  constructor(
    options: {
      readonly front: DomainPort | undefined;
      /** By dc number. Data centres that are not in it go by DNS; 203 goes where 2 goes. */
      readonly addresses: ReadonlyMap<number, DcAddress>;
      readonly pins: AddressBook;
    },
    deps: WebSocketWayDeps,
  ) {
    this.id = options.front === undefined ? "direct-ws" : "fronted-ws";
    this.#front = options.front;
    this.#addresses = options.addresses;
    this.#pins = options.pins;
    this.#deps = deps;
  }

  ways(target: DcTarget): readonly WebSocketWay[] {
    return this.#ways.of(target, () =>
      (["preferred", "alternate"] as const).map((name) => this.#way(target, name)),
    );
  }

  #way(target: DcTarget, name: "preferred" | "alternate"): WebSocketWay {
    const host = webSocketHost(target, name);
    const { address, port } = this.#where(target, host);
    const test = target.test ? " (test)" : "";
    const behind = this.#front === undefined ? "" : ` behind ${this.#front.domain}`;
    const at = address === undefined || address === host ? "" : ` at ${address}`;
    const onPort = port === TELEGRAM_PORT ? "" : `, port ${port}`;
    return new WebSocketWay(
      {
        route: this.id,
        endpoint: `${host}${test}${behind}${at}${onPort}`,
        group: this.id,
        socket: {
          serverName: this.#front?.domain ?? host,
          host: this.#front === undefined ? undefined : host,
          address,
          port,
          path: webSocketPath(target),
          subprotocol: true,
        },
        framing: "packets",
      },
      this.#deps,
    );
  }

  /** A name that is pinned goes first, then an address of the data centre, then DNS, which is not asked for the front. */
  #where(target: DcTarget, host: string): { address: string | undefined; port: number } {
    const front = this.#front;
    const known = this.#addresses.get(target.dc) ?? this.#addresses.get(webSocketDc(target.dc));
    if (front === undefined) {
      return { address: this.#pins.addressOf(host) ?? known?.ip, port: known?.port ?? TELEGRAM_PORT };
    }
    const port = front.port === TELEGRAM_PORT ? (known?.port ?? TELEGRAM_PORT) : front.port;
    const pinned = this.#pins.addressOf(front.domain) ?? this.#pins.addressOf(host);
    return { address: pinned ?? known?.ip ?? host, port };
  }
}
