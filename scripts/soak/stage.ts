import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { makeCertificates } from "../../test/support/certificates.ts";
import { stopChild } from "../bench/children.ts";
import type { HelloSigner } from "../bench/client-hello.ts";
import { COVER_DOMAIN, type CoverSite, startSite, waitUntilMeasured } from "../bench/cover-site.ts";
import { type KnownPorts, takeCensus } from "./census.ts";
import type { SoakUser } from "./config-text.ts";
import type { Options, Part } from "./options.ts";
import type { DcOrder, DcPorts, DcReport, LoadOrder, LoadReport } from "./orders.ts";
import { type Features, SoakProxy } from "./proxy.ts";
import { Talker } from "./talker.ts";
import { type Counted, isCalm } from "./verdict.ts";

/** The data centres, as they are spoken to. */
export type DataCentres = Talker<DcOrder, DcReport>;

/** The load, as it is spoken to. */
export type Load = Talker<LoadOrder, LoadReport>;

/** How a {@link Stage} is set up. */
export interface StageOptions extends Options {
  /** For what the processes write. */
  readonly folder: string;
  readonly features: Features;
  readonly parts: ReadonlySet<Part>;
  /** How long sessions may go on when their worker is to end, in milliseconds. */
  readonly drainMs: number;
  /** A data centre got what no client has sent. */
  onTrouble(message: string): void;
}

/** Who uses the proxy. */
export interface Users {
  /** Always there. */
  readonly residents: readonly SoakUser[];
  /** They come and go. */
  readonly guests: readonly SoakUser[];
  /** Has `maxConnections`. */
  readonly limited: SoakUser;
}

/** Sessions and their data centres let go of each other within this time: 15 s where one side does not end. */
const CALM_WITHIN_MS = 60_000;
const STOPPED_WITHIN_MS = 60_000;
const EXIT_WITHIN_MS = 30_000;
const RESIDENTS = 10;
const GUESTS = 2;
const LIMIT = 5;
/** Hellos that the proxy remembers at most, and the bytes that it keeps of each. */
const HELLOS = 131_072;
const HELLO_LENGTH = 16;
/** Data centres of which connections are kept. */
const DATA_CENTRES = 2;
/** Each has two names for WebSockets, of which the first to answer is kept. */
const WAYS = 2;

/** Everything that stays from the beginning to the end: data centres, web site and proxy. */
export class Stage {
  readonly users: Users;
  readonly dc: DataCentres;
  readonly proxy: SoakProxy;
  /** The web site that the proxy looks like; `undefined` without fake TLS. */
  readonly domain: string | undefined;
  /** Connections to data centres that a process may keep ready. */
  readonly mostKept: number;
  readonly #folder: string;
  readonly #cover: CoverSite | undefined;
  readonly #ports: KnownPorts;

  private constructor(
    parts: Pick<Stage, "users" | "dc" | "proxy">,
    { folder, poolSize }: StageOptions,
    { cover, dcPorts }: { readonly cover: CoverSite | undefined; readonly dcPorts: DcPorts },
  ) {
    this.users = parts.users;
    this.dc = parts.dc;
    this.proxy = parts.proxy;
    this.domain = cover && COVER_DOMAIN;
    this.mostKept = poolSize * DATA_CENTRES * WAYS;
    this.#folder = folder;
    this.#cover = cover;
    this.#ports = {
      proxy: this.proxy.port,
      status: this.proxy.statusPort,
      site: cover?.port,
      dataCentres: [...Object.values(dcPorts.calm), ...Object.values(dcPorts.rough)],
    };
  }

  static async setUp(options: StageOptions): Promise<Stage> {
    const { folder, binary, workers, poolSize, features, drainMs, parts } = options;
    const users = makeUsers();
    const { dc, ports, caFile } = await startDc(options);
    const signer = { key: randomBytes(16), domain: COVER_DOMAIN, shape: "hybrid" } as const;
    const cover = parts.has("fake-tls") ? await startSite("Bun", folder, signer) : undefined;
    // As after months: what is full grows no more.
    if (cover !== undefined) await Bun.write(join(folder, "hellos"), randomBytes(HELLOS * HELLO_LENGTH));
    const proxy = await SoakProxy.start(
      {
        ...{ binary, folder, workers, poolSize, caFile, ports, drainSeconds: drainMs / 1000 },
        cover: cover && { port: cover.port, domain: COVER_DOMAIN },
      },
      features,
      [...users.residents, ...users.guests, users.limited],
    );
    if (cover !== undefined) await waitUntilMeasured(proxy.port, cover, signerOf(users));
    return new Stage({ users, dc, proxy }, options, { cover, dcPorts: ports });
  }

  /** Starts a load, which waits for orders. @param name Of the file that gets what it prints. */
  startLoad(name: string): Load {
    const command = [process.execPath, join(import.meta.dirname, "load.ts")];
    return new Talker(command, join(this.#folder, `${name}.log`));
  }

  /** Has the load leave. */
  async end(load: Load): Promise<void> {
    const stopped = load.next("stopped", STOPPED_WITHIN_MS);
    load.send({ type: "stop" });
    await stopped;
  }

  /** Waits until no session is left, and counts what each process of the proxy has then. */
  async calm(): Promise<readonly Counted[]> {
    const late = performance.now() + CALM_WITHIN_MS;
    for (;;) {
      const counted = this.proxy
        .sample()
        .map(({ pid, role, rssKib }) => ({ pid, role, rssKib, census: takeCensus(pid, this.#ports) }));
      if (counted.every((one) => isCalm(one, this.mostKept)) || performance.now() > late) return counted;
      await Bun.sleep(500);
    }
  }

  /** Ends the proxy as an operator does, and then the rest. @returns The proxy's exit code, if it has ended. */
  async tearDown(): Promise<number | undefined> {
    process.kill(this.proxy.pid, "SIGTERM");
    const late = Bun.sleep(EXIT_WITHIN_MS).then(() => undefined);
    const code = await Promise.race([this.proxy.child.process.exited, late]);
    await this.dc.kill();
    if (this.#cover !== undefined) await stopChild(this.#cover.child);
    return code;
  }
}

async function startDc({ folder, onTrouble }: StageOptions) {
  const { caFile, certificate, key } = await makeCertificates(["*.web.telegram.org", "localhost"]);
  const files = [join(folder, "dc.pem"), join(folder, "dc.key")] as const;
  await Bun.write(files[0], certificate);
  await Bun.write(files[1], key);
  const command = [process.execPath, join(import.meta.dirname, "stub-dc.ts"), ...files];
  const dc: DataCentres = new Talker(command, join(folder, "dc.log"));
  dc.onReport = (report) => {
    if (report.type === "trouble") onTrouble(report.message);
  };
  const { ports } = await dc.next("ready");
  return { dc, ports, caFile };
}

function makeUsers(): Users {
  const make = (user: string): SoakUser => ({ user, secret: randomBytes(16).toHex() });
  return {
    residents: Array.from({ length: RESIDENTS }, (_, at) => make(`resident-${at + 1}`)),
    guests: Array.from({ length: GUESTS }, (_, at) => make(`guest-${at + 1}`)),
    limited: { ...make("limited"), maxConnections: LIMIT },
  };
}

function signerOf({ limited }: Users): HelloSigner {
  return { key: Uint8Array.fromHex(limited.secret), domain: COVER_DOMAIN, shape: "hybrid" };
}
