import { type AddressBook, type DomainPort, describeDomain } from "../../core/names.ts";
import type { DcTarget } from "../../protocol/mtproto/dc.ts";
import { webSocketPath } from "../../protocol/mtproto/dc-addresses.ts";
import type { WarmableRoute } from "../pool.ts";
import { WaysByTarget } from "../route.ts";
import { WebSocketWay, type WebSocketWayDeps } from "../web-socket-way.ts";

/**
 * Domains behind Cloudflare whose `kwsN` and `kwsN-1` lead to Telegram's own WebSocket front ends.
 *
 * The list may change at any time: ways are made anew then, and those of a domain that stays keep their
 * names, by which they are remembered.
 */
export class CfDomainRoute implements WarmableRoute {
  readonly id = "cf-domain";
  readonly #domains: () => readonly DomainPort[];
  readonly #pins: AddressBook;
  readonly #deps: WebSocketWayDeps;
  readonly #ways = new WaysByTarget<WebSocketWay>();
  #madeFrom: readonly DomainPort[] | undefined;

  constructor(
    options: {
      /** The same array as long as nothing changed. */
      readonly domains: () => readonly DomainPort[];
      readonly pins: AddressBook;
    },
    deps: WebSocketWayDeps,
  ) {
    this.#domains = options.domains;
    this.#pins = options.pins;
    this.#deps = deps;
  }

  ways(target: DcTarget): readonly WebSocketWay[] {
    const domains = this.#domains();
    if (domains !== this.#madeFrom) {
      this.#madeFrom = domains;
      this.#ways.clear();
    }
    return this.#ways.of(target, () => domains.flatMap((domain) => this.#both(domain, target)));
  }

  /** Media prefers `kwsN-1`, the rest `kwsN`; unlike Telegram's own names, DC 203 has some of its own. */
  #both(server: DomainPort, target: DcTarget): WebSocketWay[] {
    const suffixes = target.media ? ["-1", ""] : ["", "-1"];
    return suffixes.map((suffix) => {
      const serverName = `kws${target.dc}${suffix}.${server.domain}`;
      const name = describeDomain({ domain: serverName, port: server.port });
      return new WebSocketWay(
        {
          route: this.id,
          endpoint: target.test ? `${name} (test)` : name,
          group: describeDomain(server),
          socket: {
            serverName,
            address: this.#pins.addressOf(serverName),
            port: server.port,
            path: webSocketPath(target),
            subprotocol: true,
          },
          framing: "packets",
        },
        this.#deps,
      );
    });
  }
}
