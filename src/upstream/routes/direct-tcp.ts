import { CipherTransform } from "../../channel/transform.ts";
import type { Cancel } from "../../core/cancel.ts";
import { sealServerInit } from "../../crypto/obfuscated2-ciphers.ts";
import type { TcpDialer } from "../../net/tcp-dial.ts";
import { type DcTarget, formatDcId, type Target } from "../../protocol/mtproto/dc.ts";
import type { DcAddress } from "../../protocol/mtproto/dc-addresses.ts";
import { type Route, type Upstream, type Way, type WayAddress, WaysByTarget } from "../route.ts";

/** Telegram's TCP ports, with obfuscated2 only: for networks that block something else. */
export class DirectTcpRoute implements Route {
  readonly id = "direct-tcp";
  readonly #dialer: TcpDialer;
  readonly #addresses: ReadonlyMap<number, readonly DcAddress[]>;
  readonly #testAddresses: ReadonlyMap<number, readonly DcAddress[]>;
  readonly #ways = new WaysByTarget<TcpWay>();

  constructor(options: {
    readonly dialer: TcpDialer;
    /** By dc number, in the order of trying. */
    readonly addresses: ReadonlyMap<number, readonly DcAddress[]>;
    /** The same for the test environment. */
    readonly testAddresses: ReadonlyMap<number, readonly DcAddress[]>;
  }) {
    this.#dialer = options.dialer;
    this.#addresses = options.addresses;
    this.#testAddresses = options.testAddresses;
  }

  ways(target: DcTarget): readonly Way[] {
    return this.#ways.of(target, () => {
      const addresses = (target.test ? this.#testAddresses : this.#addresses).get(target.dc) ?? [];
      return addresses.map((address) => new TcpWay(address, this.#dialer));
    });
  }
}

class TcpWay implements Way {
  readonly route = "direct-tcp";
  readonly endpoint: string;
  /** IPv6 often goes past other boxes than IPv4. */
  readonly group: string;
  readonly address: WayAddress;
  readonly #dialer: TcpDialer;

  constructor({ ip, port }: DcAddress, dialer: TcpDialer) {
    this.endpoint = `${ip.includes(":") ? `[${ip}]` : ip}:${port}`;
    this.group = this.endpoint;
    this.address = { host: ip, port, webSocket: undefined };
    this.#dialer = dialer;
  }

  async open(target: Target, signal: Cancel): Promise<Upstream> {
    const channel = await this.#dialer.dial(this.address, signal);
    const { bytes, outbound, inbound } = sealServerInit({
      transport: target.transport,
      dcId: formatDcId(target),
    });
    channel.write(bytes);
    return {
      channel,
      link: { up: new CipherTransform(outbound), down: new CipherTransform(inbound) },
      warm: false,
    };
  }
}
