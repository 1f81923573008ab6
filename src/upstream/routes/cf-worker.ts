import { type AddressBook, type DomainPort, describeDomain } from "../../core/names.ts";
import type { DcTarget } from "../../protocol/mtproto/dc.ts";
import { DEFAULT_TCP_IPS, TEST_TCP_IPS } from "../../protocol/mtproto/dc-addresses.ts";
import { formatRelayPath } from "../../protocol/relay/request.ts";
import type { WarmableRoute } from "../pool.ts";
import { WaysByTarget } from "../route.ts";
import { WebSocketWay, type WebSocketWayDeps } from "../web-socket-way.ts";

/**
 * A Worker (or relay) of the user's own that joins a WebSocket to Telegram's TCP port.
 *
 * Behind its WebSocket is a byte stream: messages are not packets, and Cloudflare caps one at 1 MiB, which
 * the relay's slices of 64 KiB never reach. Its 101 says nothing about its own connection to Telegram.
 */
export class CfWorkerRoute implements WarmableRoute {
  readonly id = "cf-worker";
  readonly #domains: readonly DomainPort[];
  readonly #token: string | undefined;
  readonly #pins: AddressBook;
  readonly #deps: WebSocketWayDeps;
  readonly #ways = new WaysByTarget<WebSocketWay>();

  constructor(
    options: {
      readonly domains: readonly DomainPort[];
      /** Sent as `Authorization: Bearer`, for Workers that ask who is there. */
      readonly token: string | undefined;
      readonly pins: AddressBook;
    },
    deps: WebSocketWayDeps,
  ) {
    this.#domains = options.domains;
    this.#token = options.token;
    this.#pins = options.pins;
    this.#deps = deps;
  }

  ways(target: DcTarget): readonly WebSocketWay[] {
    return this.#ways.of(target, () => {
      const dst = (target.test ? TEST_TCP_IPS : DEFAULT_TCP_IPS).get(target.dc);
      return dst === undefined ? [] : this.#domains.map((domain) => this.#way(domain, dst, target.dc));
    });
  }

  #way(server: DomainPort, dst: string, dc: number): WebSocketWay {
    return new WebSocketWay(
      {
        route: this.id,
        endpoint: describeDomain(server),
        group: describeDomain(server),
        socket: {
          serverName: server.domain,
          address: this.#pins.addressOf(server.domain),
          port: server.port,
          path: formatRelayPath({ dst, dc }),
          // Deployed Workers answer without a subprotocol, which Bun takes for a failure once one was asked for.
          subprotocol: false,
          token: this.#token,
        },
        framing: "stream",
      },
      this.#deps,
    );
  }
}
