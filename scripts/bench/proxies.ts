import { join } from "node:path";
import {
  type Child,
  findFreePort,
  lastWords,
  startChild,
  stopChild,
  waitUntilListening,
} from "./children.ts";
import type { HelloShape, HelloSigner } from "./client-hello.ts";
import { COVER_DOMAIN, type CoverSite, waitUntilMeasured } from "./cover-site.ts";

const FOLDER = import.meta.dirname;
const SECRET = "00112233445566778899aabbccddeeff";
const KEY = Uint8Array.fromHex(SECRET);

/** What is measured; `fake TLS` is tgws with that around its clients' connections. */
export type ProxyName = "tgws" | "bare" | "fake TLS";

/** What is compared. The second is what the first is divided by. */
export type Pair = readonly [ProxyName, ProxyName];

/** What most steps compare. */
export const PLAIN_PAIR: Pair = ["tgws", "bare"];

/** What fake TLS costs. */
export const FAKE_TLS_PAIR: Pair = ["fake TLS", "tgws"];

/** Where the stub data centre is, and whom to trust there. */
export interface DataCentre {
  readonly child: Child;
  readonly port: number;
  /** A PEM file with the certificate of its CA. */
  readonly caFile: string;
}

/** A proxy that accepts connections. */
export interface RunningProxy {
  readonly name: ProxyName;
  readonly pid: number;
  readonly port: number;
  /** What clients need to know; `undefined` when the proxy does not look into the stream. */
  readonly secret: Uint8Array | undefined;
  /** What clients sign their ClientHello with; `undefined` when there is no fake TLS. */
  readonly signer: HelloSigner | undefined;
  /** From the start of the process until it accepted a connection. */
  readonly startMs: number;
  /** The last lines that it has written. */
  lastWords(): string;
  stop(): Promise<void>;
}

/** How a proxy is started. */
export interface StartOptions {
  readonly dataCentre: DataCentre;
  /** An executable of tgws to measure instead of its source. */
  readonly binary: string | undefined;
  /** What `--pool-size` gets. */
  readonly poolSize: number;
  /** The site that a proxy with fake TLS looks like. */
  readonly cover?: CoverSite;
  /** A folder for what the processes write. */
  readonly folder: string;
  /** The folder of the configuration of tgws, and of what it learns. Without: `folder`. */
  readonly home?: string;
  /** The flags that tell tgws its routes. Without: those to `dataCentre`. */
  readonly upstreams?: readonly string[];
}

/** Starts a proxy and waits until it listens. */
export async function startProxy(name: ProxyName, options: StartOptions): Promise<RunningProxy> {
  const { folder } = options;
  const port = findFreePort();
  const command = name === "bare" ? bareCommand(port, options) : tgwsCommand(port, options);
  if (name === "fake TLS") command.push(...fakeTlsFlags(options));
  const startedAt = performance.now();
  // Added to the built-in roots: trust then costs what it costs a user, which `--tls-ca` alone would not show.
  const env = { TGWS_HOME: options.home ?? folder, NODE_EXTRA_CA_CERTS: options.dataCentre.caFile };
  const child = startChild(command, join(folder, `${name}.log`), env);
  const startMs = await waitUntilListening(child, port, startedAt);
  const signer = name === "fake TLS" ? signerOf("hybrid") : undefined;
  if (signer !== undefined && options.cover !== undefined)
    await waitUntilMeasured(port, options.cover, signer);
  return {
    name,
    pid: child.pid,
    port,
    secret: name === "bare" ? undefined : KEY,
    signer,
    startMs,
    lastWords: () => lastWords(child),
    stop: () => stopChild(child),
  };
}

function tgwsCommand(port: number, { dataCentre, binary, poolSize, upstreams }: StartOptions): string[] {
  const program =
    binary === undefined ? [process.execPath, "run", join(FOLDER, "../../src/main.ts")] : [binary];
  const flags = upstreams ?? ["--route", "direct-ws", "--dc-ip", `2:127.0.0.1:${dataCentre.port}`];
  const pool = String(poolSize);
  return [...program, "--port", String(port), "--secret", SECRET, ...flags, "--pool-size", pool];
}

function fakeTlsFlags({ cover }: StartOptions): string[] {
  if (cover === undefined) throw new Error("fake TLS without a site");
  return ["--fake-tls-domain", COVER_DOMAIN, "--mask-host", `127.0.0.1:${cover.port}`];
}

/** What clients of this benchmark's proxies sign hellos with. */
export function signerOf(shape: HelloShape): HelloSigner {
  return { key: KEY, domain: COVER_DOMAIN, shape };
}

function bareCommand(port: number, { dataCentre }: StartOptions): string[] {
  return [process.execPath, join(FOLDER, "bare-relay.ts"), String(port), String(dataCentre.port)];
}

/** Starts the stub data centre. @param certificate PEM, as is `key`. */
export async function startDataCentre(
  folder: string,
  {
    caFile,
    certificate,
    key,
  }: { readonly caFile: string; readonly certificate: string; readonly key: string },
): Promise<DataCentre> {
  const certificateFile = join(folder, "certificate.pem");
  const keyFile = join(folder, "key.pem");
  await Bun.write(certificateFile, certificate);
  await Bun.write(keyFile, key);
  const port = findFreePort();
  const command = [process.execPath, join(FOLDER, "stub-dc.ts"), String(port), certificateFile, keyFile];
  const child = startChild(command, join(folder, "stub-dc.log"));
  await waitUntilListening(child, port, performance.now());
  return { child, port, caFile };
}
