import { afterEach, describe, expect, spyOn, test } from "bun:test";
import { type AddressInfo, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { buildDisguise } from "../../src/cli/build-disguise.ts";
import { parseConfig } from "../../src/config/config.ts";
import type { RawConfig } from "../../src/config/fields.ts";
import type { Logger } from "../../src/core/logger.ts";
import { measureClientHello } from "../../src/protocol/tls/client-hello-records.ts";
import type { Disguise } from "../../src/proxy/entrance.ts";
import { SiteUsers } from "../../src/proxy/mask.ts";
import { SeenHellos } from "../../src/proxy/seen-hellos.ts";
import { buildHello } from "../support/fake-tls-hello.ts";
import { eventually } from "./frame-server.ts";

const LOOP_TEXT = "it leads back to this proxy";
const PRIVATE_TEXT = "it leads to a private address";

const NAME = "cover.example";
const SECRET = { name: "family", key: new Uint8Array(16).fill(9) };
const NEVER = new AbortController().signal;

let undo: (() => void)[] = [];
afterEach(() => {
  for (const one of undo) one();
  undo = [];
});

/** What DNS says of every name. */
function answerDns(...addresses: readonly string[]): void {
  const lookUp = spyOn(Bun.dns, "lookup").mockImplementation(async () =>
    addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4, ttl: 0 })),
  );
  undo.push(() => lookUp.mockRestore());
}

interface Setup extends Disguise {
  readonly warnings: string[];
}

function build(raw: RawConfig = {}, port = 443): Setup {
  const warnings: string[] = [];
  const log: Logger = { debug() {}, info() {}, warn: (text) => warnings.push(text), error() {} };
  const config = parseConfig({ fakeTlsDomain: [NAME], ...raw });
  const disguise = buildDisguise(config, {
    secrets: [SECRET],
    proxy: undefined,
    hellos: new SeenHellos(),
    users: new SiteUsers(1),
    port: () => port,
    log,
  });
  if (disguise === undefined) throw new Error("there is none");
  undo.push(() => disguise.cover.close());
  return { ...disguise, warnings };
}

/** A server on loopback; returns its port. */
async function openSite(): Promise<number> {
  const site = createServer((socket) => socket.on("error", () => {}));
  const { promise, resolve } = Promise.withResolvers<void>();
  site.listen(0, "127.0.0.1", resolve);
  await promise;
  undo.push(() => site.close());
  return (site.address() as AddressInfo).port;
}

const LEADS_BACK = { code: "UNREACHABLE", message: LOOP_TEXT };
const PRIVATE = { code: "UNREACHABLE", message: PRIVATE_TEXT };

describe("buildDisguise()", () => {
  test("makes none unless fake TLS is accepted", () => {
    const hellos = new SeenHellos();
    const users = new SiteUsers(1);
    const deps = { secrets: [SECRET], proxy: undefined, hellos, users, port: () => 443, log: console };
    expect(buildDisguise(parseConfig({}), deps)).toBeUndefined();
    expect(buildDisguise(parseConfig({ fakeTlsDomain: [NAME], accept: ["plain"] }), deps)).toBeUndefined();
  });

  test("knows clients by the secrets, the domains and this machine's clock", async () => {
    const { tls } = build({ fakeTlsDomain: [`${NAME},other.example`] });
    for (const [serverName, timestamp, kind] of [
      ["other.example", undefined, "client"],
      ["COVER.EXAMPLE", undefined, "client"],
      ["wrong.example", undefined, "stranger"],
      [NAME, Math.floor(Date.now() / 1000) - 200, "stranger"],
    ] as const) {
      const time = timestamp === undefined ? {} : { timestamp };
      const { bytes } = buildHello({ secret: SECRET.key, serverName, ...time });
      const progress = measureClientHello(bytes);
      if (progress.kind !== "whole") throw new Error("unreachable");
      expect((await tls.admit(bytes, progress, () => ({ rate: undefined }))).kind).toBe(kind);
    }
  });

  test("finds out that the site is we ourselves when a hello of its own comes in", async () => {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.on("data", async (bytes: Uint8Array) => {
        const progress = measureClientHello(bytes);
        if (progress.kind === "whole") await disguise.tls.admit(bytes, progress, () => ({ rate: undefined }));
        socket.destroy();
      });
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    undo.push(() => server.close());
    answerDns("127.0.0.1");
    const site = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const disguise = build({ maskHost: [site] });
    disguise.cover.start();
    await eventually(() => disguise.warnings.length === 1);
    expect(disguise.warnings[0]).toBe(
      `--mask-host ${site} leads back to this proxy: give the web server's own address and port`,
    );
    await expect(disguise.cover.connect(NAME, NEVER)).rejects.toMatchObject(LEADS_BACK);
  });

  test("goes to the mask host, wherever it is", async () => {
    const port = await openSite();
    const { cover } = build({ maskHost: [`127.0.0.1:${port}`] });
    (await cover.connect(NAME, NEVER)).destroy();
    (await cover.connect(undefined, NEVER)).destroy();
  });

  test("goes to an address that is given for the name, even here", async () => {
    const { cover } = build({ resolve: [`${NAME}=127.0.0.1`], host: ["127.0.0.1"] }, 1_443);
    const error: unknown = await cover.connect(NAME, NEVER).then(
      (channel) => channel.destroy(),
      (error: unknown) => error,
    );
    if (error !== undefined) expect(error).toMatchObject({ code: "REFUSED" }); // unless there is a web server
  });

  test.each(["10.0.0.1", "127.0.0.1", "::1", "192.168.0.1"])(
    "does not go where DNS says %s",
    async (address) => {
      answerDns(address);
      await expect(build({}, 1_443).cover.connect(NAME, NEVER)).rejects.toMatchObject(PRIVATE);
    },
  );

  const own = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .map(({ address }) => address)
    .filter((address) => !address.includes("%"));

  test.each([
    ["127.0.0.1", "127.0.0.1"],
    ["0.0.0.0", "127.0.0.1"],
    ["0.0.0.0", "127.0.0.99"],
    ["0.0.0.0", own.at(-1) ?? "127.0.0.1"],
    ["::", "::1"],
    ["::", "::ffff:127.0.0.1"],
    ["::", own[0] ?? "::1"],
  ])("does not go to itself: listening on %s, the site at %s", async (host, address) => {
    answerDns(address);
    await expect(build({ host: [host] }).cover.connect(NAME, NEVER)).rejects.toMatchObject(LEADS_BACK);
  });

  test("does not go to itself by a mask host or an address that is given", async () => {
    const mask = build({ host: ["0.0.0.0"], maskHost: ["127.0.0.1:1443"] }, 1_443);
    await expect(mask.cover.connect(NAME, NEVER)).rejects.toMatchObject(LEADS_BACK);
    const given = build({ host: ["0.0.0.0"], resolve: [`${NAME}=127.0.0.1`] });
    await expect(given.cover.connect(NAME, NEVER)).rejects.toMatchObject(LEADS_BACK);
  });

  test("tells another port of this machine from its own", async () => {
    const port = await openSite();
    const { cover } = build({ host: ["0.0.0.0"], maskHost: [`127.0.0.1:${port}`] }, 1_443);
    (await cover.connect(NAME, NEVER)).destroy();
  });

  test("asks for its port only when it is needed, since it may be any free one", () => {
    const port = (): number => {
      throw new Error("too early");
    };
    const log: Logger = { debug() {}, info() {}, warn() {}, error() {} };
    buildDisguise(parseConfig({ fakeTlsDomain: [NAME] }), {
      secrets: [SECRET],
      proxy: undefined,
      hellos: new SeenHellos(),
      users: new SiteUsers(1),
      port,
      log,
    });
  });

  test("says in the log what is wrong with the site", async () => {
    answerDns("10.0.0.1");
    const { cover, warnings } = build({}, 1_443);
    cover.start();
    await eventually(() => warnings.length === 2);
    expect(warnings[0]).toContain(`${NAME} leads to 10.0.0.1 and not to this machine`);
    expect(warnings[1]).toContain(`${NAME} leads to a private address (10.0.0.1:443)`);
    expect(warnings[1]).toEndWith("If that is meant, name it: --mask-host 10.0.0.1:443");
  });

  // A listener on `localhost` is one on 127.0.0.1: the same connection, in other words.
  test("does not go to itself when it listens on a name", async () => {
    const { cover } = build({ host: ["localhost"], maskHost: ["127.0.0.1:1443"] }, 1_443);
    await expect(cover.connect(NAME, NEVER)).rejects.toMatchObject(LEADS_BACK);
  });

  test("does not go to itself by the long form of its address", async () => {
    const { cover } = build({ host: ["127.0.0.1"], maskHost: ["[::ffff:127.0.0.1]:1443"] }, 1_443);
    await expect(cover.connect(NAME, NEVER)).rejects.toMatchObject(LEADS_BACK);
  });
});
