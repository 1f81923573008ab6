import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { stopChild } from "../children.ts";
import { type HelloSigner, isSigned, makeForeignHello, makeHello } from "../client-hello.ts";
import { type CoverSite, FLIGHT_RECORDS, OTHER_DOMAIN, type SiteProgram, startSite } from "../cover-site.ts";
import { FIRST_BYTE_US, type Figure, FLIGHT_US } from "../figures.ts";
import { type RunningProxy, type StartOptions, signerOf, startProxy } from "../proxies.ts";
import { ask } from "../stranger.ts";
import type { Rig } from "../window.ts";
import type { SoloStep } from "./step.ts";

/** What just-in-time compilers on both sides have seen before the first figure. */
const REHEARSALS = 200;
/** So many of each kind are sent in random order before hellos for the next replays are shown to the proxy. */
const BATCH = 50;
/** Before a batch, in milliseconds: what accepted hellos leave behind. */
const SETTLE_MS = 200;
/** Between two strangers: so long takes what the one before leaves behind, in milliseconds. */
const GAP_MS = 2;
/** The proxy accepts 120 s; in seconds. */
const SKEWS_S = [-100_000, -3_600, -300, -130, 130, 300, 3_600, 100_000];

/** Who asks, in the order of the table: all others are compared with the first. */
const KINDS = ["wrong digest", "wrong time", "replay", "wrong name", "straight to the site"] as const;

type Kind = (typeof KINDS)[number];

/** How long it takes until strangers are shown the cover site, by what is wrong with their hello. Asserts nothing. */
export function maskingStep(program: SiteProgram): SoloStep {
  const name = `masking, ${program}`;
  return { name, runSolo: (options, rig) => measure(name, program, options, rig) };
}

async function measure(
  name: string,
  program: SiteProgram,
  options: StartOptions,
  rig: Rig,
): Promise<Figure[]> {
  const signer = signerOf("hybrid");
  const folder = mkdtempSync(join(options.folder, "site-"));
  const cover = await startSite(program, folder, signer);
  const proxy = await startProxy("fake TLS", { ...options, cover, home: folder });
  try {
    const survey = new Survey(proxy, cover, signer);
    await survey.run(Math.min(REHEARSALS, rig.strangers));
    survey.times.clear();
    for (let done = 0; done < rig.strangers; done += BATCH)
      await survey.run(Math.min(BATCH, rig.strangers - done));
    return KINDS.flatMap((kind) => {
      const times = survey.times.get(kind) ?? [];
      return times.flatMap(({ firstByteUs, lastByteUs }) => [
        { name: `${name}: ${kind}`, unit: FIRST_BYTE_US, value: firstByteUs },
        { name: `${name}: ${kind}`, unit: FLIGHT_US, value: lastByteUs },
      ]);
    });
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`${message}\n${proxy.lastWords()}`, { cause });
  } finally {
    await proxy.stop();
    await stopChild(cover.child);
  }
}

interface Times {
  readonly firstByteUs: number;
  readonly lastByteUs: number;
}

/** Strangers of all kinds, one after the other. */
class Survey {
  readonly times = new Map<Kind, Times[]>();
  readonly #proxy: RunningProxy;
  readonly #cover: CoverSite;
  readonly #signer: HelloSigner;
  /** Hellos that the proxy has accepted. */
  #accepted: Buffer[] = [];

  constructor(proxy: RunningProxy, cover: CoverSite, signer: HelloSigner) {
    this.#proxy = proxy;
    this.#cover = cover;
    this.#signer = signer;
  }

  /** Sends so many of every kind. @throws {Error} When one gets another answer than it should. */
  async run(count: number): Promise<void> {
    for (let made = 0; made < count; made += 1) await this.#accept();
    await Bun.sleep(SETTLE_MS);
    for (const kind of shuffle(KINDS.flatMap((kind) => Array<Kind>(count).fill(kind)))) {
      const hello = this.#makeHello(kind);
      await Bun.sleep(GAP_MS);
      const port = kind === "straight to the site" ? this.#cover.port : this.#proxy.port;
      const { bytes, ...times } = await ask(port, hello, this.#cover.flight.types.length);
      if (isSigned(bytes, hello, this.#signer.key))
        throw new Error(`a client's answer to a hello with ${kind}`);
      const all = this.times.get(kind) ?? [];
      all.push(times);
      this.times.set(kind, all);
    }
  }

  async #accept(): Promise<void> {
    const hello = makeHello(this.#signer);
    const { bytes } = await ask(this.#proxy.port, hello, FLIGHT_RECORDS);
    if (!isSigned(bytes, hello, this.#signer.key)) throw new Error("a client's hello is not accepted");
    this.#accepted.push(hello);
  }

  #makeHello(kind: Kind): Buffer {
    const skew = SKEWS_S[Math.floor(Math.random() * SKEWS_S.length)] ?? 0;
    switch (kind) {
      case "wrong time":
        return makeHello(this.#signer, Date.now() / 1000 + skew);
      case "wrong name":
        return makeHello({ ...this.#signer, domain: OTHER_DOMAIN });
      case "replay": {
        const hello = this.#accepted.pop();
        if (hello === undefined) throw new Error("no hello is left that was accepted");
        return hello;
      }
      default:
        return makeForeignHello(this.#signer);
    }
  }
}

function shuffle<Item>(items: readonly Item[]): Item[] {
  return items
    .map((item) => ({ item, order: Math.random() }))
    .sort((a, b) => a.order - b.order)
    .map(({ item }) => item);
}
