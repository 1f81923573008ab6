import { ByteReader } from "../channel/byte-reader.ts";
import type { Channel, GatherChannel } from "../channel/channel.ts";
import type { ByteCounts } from "../channel/splice.ts";
import type { Cancel } from "../core/cancel.ts";
import { HandshakeError, ProxyHeaderError, RefusedError } from "../core/errors.ts";
import type { MaskReason, RefusalReason } from "../core/events.ts";
import type { IpNetwork } from "../core/ip-network.ts";
import { INIT_LENGTH } from "../protocol/mtproto/obfuscated2.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { measureProxyHeader } from "../protocol/proxy-protocol.ts";
import { measureClientHello } from "../protocol/tls/client-hello-records.ts";
import { type Admission, refused } from "./admission.ts";
import type { Cover } from "./cover.ts";
import { EarlySite } from "./early-site.ts";
import type { FakeTls } from "./fake-tls.ts";
import { FakeTlsChannel } from "./fake-tls-channel.ts";
import type { Gate, Grant, Visit } from "./gate.ts";
import { type AcceptedForms, ANY_FORM, type Handshake, readClientHandshake } from "./handshake.ts";
import { Mask, type SiteUsers } from "./mask.ts";

/** From our first flight to a complete init: as long as web servers wait for a handshake to end, in milliseconds. */
const FINISH_MS = 60_000;

/**
 * The longest pause within an init, in milliseconds. It comes in one piece, unless the network cuts it; and a server
 * answers at once to what it does not understand.
 */
const INIT_PAUSE_MS = 700;

/** Whom a load balancer's own connections, such as its health checks, count as: this machine, which has no limits. */
const NOBODY_ELSE = "127.0.0.1";

const STRANGER = { kind: "stranger" } as const;

/** Which addresses are welcome at all. */
export interface AddressFilter {
  allows(address: string): boolean;
}

/** Fake TLS, and the web sites behind it. */
export interface Disguise {
  readonly tls: FakeTls;
  readonly cover: Cover;
  /** Those who are connected to a site. */
  readonly users: SiteUsers;
}

/** Who is let in, and how. */
export interface EntranceDeps {
  readonly secrets: readonly NamedSecret[];
  /** Inits that need no fake TLS around them. */
  readonly forms: AcceptedForms;
  /** With it, whoever is no client is shown the cover site. */
  readonly disguise: Disguise | undefined;
  /** With them, every connection comes from a load balancer in one of them, and begins with whom it brings. */
  readonly trustedProxies: readonly IpNetwork[] | undefined;
  /** From accept to a complete init or ClientHello, and how long a stranger is kept, in milliseconds. */
  readonly handshakeTimeoutMs: number;
  /** Counts who comes, and for whom. */
  readonly gate: Gate;
  /** With it, only whom it allows is served; load balancers themselves always are. */
  readonly addresses: AddressFilter | undefined;
}

/** Hears what a connection is, before it is in. */
export interface EntranceListener {
  /** Counts what a stranger and the cover site say to each other. */
  readonly counts: ByteCounts;
  /** The address of the client behind the load balancer. */
  onAddress(address: string): void;
  /** It counts from now on, until the listener calls {@link Visit.leave}. */
  onArrived(visit: Visit): void;
  /** It has shown the secret of `user`, who is asked for. */
  onUser(user: string): void;
  /** @param user Whose secret it has shown, where it has come so far. */
  onRefused(why: RefusalReason, user: string | undefined): void;
  onMasked(why: MaskReason, detail: string): void;
}

/** What became of a connection. */
export type Entry =
  | {
      readonly kind: "client";
      /** What it says inside of whatever is around it. */
      readonly channel: Channel;
      /** Listens to `channel`, and may hold what came after the init. */
      readonly reader: ByteReader;
      readonly client: Extract<Handshake, { kind: "client" }>;
      /** What its user may do. */
      readonly grant: Grant;
    }
  /** It has been read and discarded until the deadline: closing at once would tell it apart. */
  | { readonly kind: "stranger" }
  /** It sees the cover site from now on. */
  | { readonly kind: "masked"; readonly mask: Mask };

/** Takes one connection from its first byte to an {@link Entry}. */
export class Entrance {
  readonly #channel: GatherChannel;
  readonly #deps: EntranceDeps;
  readonly #listener: EntranceListener;
  #site: EarlySite | undefined;
  #visit: Visit | undefined;
  /** Its address is not welcome. */
  #denied = false;

  constructor(channel: GatherChannel, deps: EntranceDeps, listener: EntranceListener) {
    this.#channel = channel;
    this.#deps = deps;
    this.#listener = listener;
  }

  /**
   * @param address Where the connection comes from.
   * @throws {HandshakeError} `CLOSED` or `TIMEOUT` when it ended, or not enough came.
   * @throws {ProxyHeaderError} When it does not come from a load balancer as it should.
   * @throws {RefusedError} When it is over a limit, and is not shown the cover site instead.
   * @throws {RouteError} When the cover site cannot be reached.
   */
  async enter(address: string): Promise<Entry> {
    const { trustedProxies, disguise, handshakeTimeoutMs } = this.#deps;
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), handshakeTimeoutMs);
    const reader = new ByteReader(this.#channel);
    try {
      const client =
        trustedProxies === undefined
          ? address
          : await this.#readProxyHeader(reader, trustedProxies, address, deadline.signal);
      const arrival = this.#arrive(client);
      if (arrival !== undefined) await arrival;
      if (disguise === undefined) return await this.#enterPlainly(reader, deadline.signal);
      this.#site = new EarlySite(disguise.cover, disguise.users);
      return await this.#enterDisguised(reader, disguise, this.#site, deadline.signal);
    } catch (error) {
      this.#channel.end(); // servers end what they do not want with a FIN; dropping it alone would be a reset
      throw error;
    } finally {
      clearTimeout(timer);
      this.stop();
    }
  }

  /** Gives up the connection to the site, unless somebody sees it. */
  stop(): void {
    this.#site?.destroy();
  }

  /** Where gates answer at once, nothing waits. @param address `undefined`: a load balancer speaks for itself. */
  #arrive(address: string | undefined): Promise<void> | undefined {
    const { addresses, gate, disguise } = this.#deps;
    if (address !== undefined && addresses?.allows(address) === false) {
      this.#listener.onRefused("address-denied", undefined);
      if (disguise === undefined) throw new RefusedError("address-denied");
      this.#denied = true;
    }
    const visit = this.#hearing(undefined, () => gate.arrive(address ?? NOBODY_ELSE));
    if (visit instanceof Promise) return visit.then((late) => this.#onArrived(late));
    this.#onArrived(visit);
    return undefined;
  }

  #onArrived(visit: Visit): void {
    this.#visit = visit;
    this.#listener.onArrived(visit);
  }

  /** @throws {RefusedError} */
  readonly #enterAs = (user: string): Grant | Promise<Grant> => {
    if (this.#denied) throw new RefusedError("address-denied");
    const visit = this.#visit;
    if (visit === undefined) throw new Error("entered before it arrived");
    return this.#hearing(user, () => {
      this.#listener.onUser(user);
      return visit.enter(user);
    });
  };

  /** Does what may be refused, and tells so. */
  #hearing<T>(user: string | undefined, attempt: () => T | Promise<T>): T | Promise<T> {
    const onError = (error: unknown): never => {
      if (error instanceof RefusedError) this.#listener.onRefused(error.code, user);
      throw error;
    };
    try {
      const result = attempt();
      return result instanceof Promise ? result.catch(onError) : result;
    } catch (error) {
      return onError(error);
    }
  }

  /** @returns The client's address; `undefined` when the load balancer speaks for itself. */
  async #readProxyHeader(
    reader: ByteReader,
    trusted: readonly IpNetwork[],
    address: string,
    deadline: Cancel,
  ): Promise<string | undefined> {
    if (!trusted.some((network) => network.contains(address))) {
      throw new ProxyHeaderError("untrusted", "not from a load balancer that --trusted-proxy names");
    }
    for (let needed = 1; ; ) {
      const progress = measureProxyHeader(await reader.peek(needed, deadline).catch(lateHeader));
      if (progress.kind === "whole") {
        reader.take(progress.length);
        if (progress.source === undefined) return undefined;
        this.#listener.onAddress(progress.source.address);
        return progress.source.address;
      }
      needed = progress.needed;
    }
  }

  async #enterPlainly(reader: ByteReader, deadline: Cancel): Promise<Entry> {
    const { secrets, forms } = this.#deps;
    const client = await readClientHandshake(reader, secrets, forms, deadline);
    if (client.kind === "client") {
      const grant = await this.#enterAs(client.secret);
      return { kind: "client", channel: this.#channel, reader, client, grant };
    }
    await reader.discard(deadline);
    return { kind: "stranger" };
  }

  async #enterDisguised(
    reader: ByteReader,
    { tls, users }: Disguise,
    early: EarlySite,
    deadline: AbortSignal,
  ): Promise<Entry> {
    const stop = AbortSignal.any([deadline, early.spoke]);
    const plain = await this.#tryInit(reader, stop);
    if (plain?.kind === "client") return plain;
    const admission = plain ?? (await this.#admit(reader, tls, stop));
    if (admission.kind === "client") {
      early.destroy(); // the init is a round trip away
      return this.#finish(reader, admission);
    }
    this.#listener.onMasked(admission.why, admission.detail);
    reader.onEnded = () => {
      if (reader.abandoned) this.stop();
    };
    const { channel: site, bytes, ended } = await early.take(admission.serverName);
    const fromClient = reader.rest();
    const mask = new Mask(
      this.#channel,
      site,
      { fromClient: ended ? new Uint8Array(0) : fromClient, fromSite: bytes },
      this.#listener.counts,
    );
    users.delete(early);
    users.add(mask);
    const onEnd = (): void => users.delete(mask);
    mask.ended.then(onEnd, onEnd);
    return { kind: "masked", mask };
  }

  /** Where inits are accepted without fake TLS, too: looks whether this is one. */
  async #tryInit(
    reader: ByteReader,
    stop: AbortSignal,
  ): Promise<Extract<Entry, { kind: "client" }> | Extract<Admission, { kind: "stranger" }> | undefined> {
    const { secrets, forms } = this.#deps;
    if ((!forms.plain && !forms.padded) || this.#denied) return undefined;
    try {
      const start = await reader.peek(1, stop);
      if (start.length < INIT_LENGTH && isHttp(start)) return undefined;
      if (!(await isInitComing(reader, stop))) return undefined;
      const init = (await reader.peek(INIT_LENGTH, stop)).subarray(0, INIT_LENGTH);
      const client = await readClientHandshake(reader, secrets, forms, stop);
      if (client.kind === "stranger") return undefined;
      try {
        const grant = await this.#enterAs(client.secret);
        return { kind: "client", channel: this.#channel, reader, client, grant };
      } catch (error) {
        if (!(error instanceof RefusedError)) throw error;
        reader.putBack(init); // the site gets all that came
        return refused(error, undefined);
      }
    } catch (error) {
      if (error instanceof HandshakeError) return undefined; // too short for an init: the next step says what it is
      throw error;
    }
  }

  /** Reads a ClientHello as far as it takes to know what it is; on admission it is taken from the reader. */
  async #admit(reader: ByteReader, tls: FakeTls, stop: Cancel): Promise<Admission> {
    try {
      for (let needed = 1; ; ) {
        const bytes = await reader.peek(needed, stop);
        const progress = measureClientHello(bytes);
        if (progress.kind === "partial") {
          needed = progress.needed;
          continue;
        }
        const admission = await tls.admit(bytes, progress, this.#enterAs);
        if (admission.kind === "client") reader.take(progress.length);
        else if (this.#denied) return { ...admission, why: "refused" };
        return admission;
      }
    } catch (error) {
      if (!(error instanceof HandshakeError) || reader.abandoned) throw error;
      const why = this.#denied ? "refused" : error.code === "BAD_CLIENT_HELLO" ? "not-tls" : "silent";
      return { kind: "stranger", why, serverName: undefined, detail: error.message };
    }
  }

  /** Answers a client's hello and reads its init from the records that follow. */
  async #finish(
    outer: ByteReader,
    { secret, flight, grant }: Extract<Admission, { kind: "client" }>,
  ): Promise<Entry> {
    this.#channel.write(flight);
    const channel = new FakeTlsChannel(this.#channel, outer.rest());
    const reader = new ByteReader(channel);
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), FINISH_MS);
    try {
      const client = (await isInitComing(reader, deadline.signal))
        ? await readClientHandshake(reader, [secret], ANY_FORM, deadline.signal)
        : STRANGER;
      if (client.kind === "client") return { kind: "client", channel, reader, client, grant };
      channel.refuse();
      return { kind: "stranger" };
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Inits outside of fake TLS do not begin so, and a web server answers such a line at once. */
function isHttp(start: Uint8Array): boolean {
  return /^(?:GET |POST|HEAD|OPTI)/.test(String.fromCharCode(...start.subarray(0, 4)));
}

function lateHeader(error: unknown): never {
  if (!(error instanceof HandshakeError) || error.code !== "TIMEOUT") throw error;
  throw new ProxyHeaderError("missing", "Cannot read PROXY header: it was not complete in time");
}

/** Waits for the 64 bytes of an init; `false` when it stops within them. */
async function isInitComing(reader: ByteReader, deadline: AbortSignal): Promise<boolean> {
  await reader.peek(1, deadline);
  while (reader.heldBytes < INIT_LENGTH) {
    const patience = AbortSignal.any([deadline, AbortSignal.timeout(INIT_PAUSE_MS)]);
    try {
      await reader.peek(reader.heldBytes + 1, patience);
    } catch (error) {
      if (error instanceof HandshakeError && error.code === "TIMEOUT") return false;
      throw error;
    }
  }
  return true;
}
