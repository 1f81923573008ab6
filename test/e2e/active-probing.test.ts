import { afterAll, beforeAll, describe, expect, it } from "bun:test";
import { CoverSite } from "../support/cover-site.ts";
import { COVER_DOMAIN, describeLook, differences, isSigned, type Look, look, Pair } from "../support/look.ts";
import { PATIENCE_MS, PROBES, type Probe } from "../support/probes.ts";

if (CoverSite.missing !== undefined) console.warn(`active probes are not tested: ${CoverSite.missing}`);

/** The site's own patience: what shows that it is the site that ends a connection. */
const SITE_PATIENCE_MS = 3_000;
const TEST_LIMIT_MS = 60_000;

let pair: Pair;
/** What the site has shown. */
const seen = new Set<string>();

beforeAll(async () => {
  if (CoverSite.missing !== undefined) return;
  pair = await Pair.start({
    site: { clientHeaderTimeoutMs: SITE_PATIENCE_MS, keepaliveTimeoutMs: SITE_PATIENCE_MS },
  });
}, TEST_LIMIT_MS);

afterAll(async () => {
  await pair?.[Symbol.asyncDispose]();
});

/** What both show to the same probe. */
interface Views {
  readonly ofSite: Look;
  readonly ofTgws: Look;
  /** Whether the proxy's answer proves that it knows the secret. */
  readonly signed: boolean;
}

async function probe({ prepare, patienceMs = PATIENCE_MS }: Probe): Promise<Views> {
  const { site, proxy } = pair;
  const { visit, random } = prepare({ secret: proxy.secret, serverName: COVER_DOMAIN });
  const [ofSite, ofTgws] = await Promise.all([
    look(site.port, visit, patienceMs),
    look(proxy.port, visit, patienceMs),
  ]);
  const signed = random !== undefined && isSigned(ofTgws.received, random, proxy.secret);
  return { ofSite, ofTgws, signed };
}

describe.skipIf(CoverSite.missing !== undefined)("tgws and its site", () => {
  describe.concurrent("cannot be told apart by", () => {
    for (const each of PROBES) {
      it(
        each.name,
        async () => {
          const { ofSite, ofTgws, signed } = await probe(each);
          seen.add(describeLook(ofSite));
          expect(differences(ofSite, ofTgws)).toEqual([]);
          expect(signed).toBe(false);
        },
        TEST_LIMIT_MS,
      );
    }
  });

  it("have shown all that a site shows", () => {
    const all = [...seen].join("\n");
    for (const kind of [
      /HTTP\/1.1 400/,
      /^alert\(\d+\), fin$/m,
      /^handshake\(2, 122\).*, fin$/m,
      /^nothing, fin$/m,
      /, reset$/m,
    ])
      expect(all).toMatch(kind);
  });
});
