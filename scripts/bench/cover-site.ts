import { join } from "node:path";
import { makeCertificates } from "../../test/support/certificates.ts";
import { type Child, findFreePort, startChild, waitUntilListening } from "./children.ts";
import { type HelloSigner, isSigned, makeForeignHello, makeHello } from "./client-hello.ts";
import { type FlightShape, measureFlight } from "./fake-tls-stream.ts";
import { ask, learnFlight } from "./stranger.ts";

/** The name of the site behind which a proxy hides, and one of the same length that is not its. */
export const COVER_DOMAIN = "cover.example";
export const OTHER_DOMAIN = "other.example";

/** What can serve the site. */
export type SiteProgram = "Bun" | "nginx";

/** Records of a proxy's first flight. */
export const FLIGHT_RECORDS = 3;

/** From its start, the proxy asks the site three times and waits 400 ms after each answer. */
const MEASURED_WITHIN_MS = 20_000;
/** A signature's length differs from one connection to the next, in bytes. */
const LENGTH_SPREAD = 16;

/** A web site on loopback. */
export interface CoverSite {
  readonly child: Child;
  readonly port: number;
  /** How it answers. */
  readonly flight: FlightShape;
}

/** Returns what can serve a site here. */
export function findSitePrograms(): readonly SiteProgram[] {
  return Bun.which("nginx") === null ? ["Bun"] : ["Bun", "nginx"];
}

/** Starts a web site with a certificate of its own. @param signer Only for what its hellos look like. */
export async function startSite(
  program: SiteProgram,
  folder: string,
  signer: HelloSigner,
): Promise<CoverSite> {
  const { certificate, key } = await makeCertificates([COVER_DOMAIN]);
  const certificateFile = join(folder, `${program}-certificate.pem`);
  const keyFile = join(folder, `${program}-key.pem`);
  await Bun.write(certificateFile, certificate);
  await Bun.write(keyFile, key);
  const port = findFreePort();
  const configFile = join(folder, "nginx.conf");
  await Bun.write(configFile, formatNginxConfig(port, certificateFile, keyFile));
  const command =
    program === "nginx"
      ? ["nginx", "-p", folder, "-e", "stderr", "-c", configFile]
      : [process.execPath, join(import.meta.dirname, "site.ts"), String(port), certificateFile, keyFile];
  const child = startChild(command, join(folder, `${program}.log`));
  await waitUntilListening(child, port, performance.now());
  return { child, port, flight: await learnFlight(port, makeForeignHello(signer)) };
}

/** One process, so that it ends when it is killed. */
function formatNginxConfig(port: number, certificateFile: string, keyFile: string): string {
  return `daemon off;
master_process off;
pid nginx.pid;
events {}
http {
  access_log off;
  client_body_temp_path .;
  proxy_temp_path .;
  fastcgi_temp_path .;
  uwsgi_temp_path .;
  scgi_temp_path .;
  server {
    listen 127.0.0.1:${port} ssl http2;
    server_name ${COVER_DOMAIN};
    ssl_certificate ${certificateFile};
    ssl_certificate_key ${keyFile};
    ssl_protocols TLSv1.2 TLSv1.3;
    return 200 "hello";
  }
}
`;
}

/**
 * Waits until a proxy has measured its site: its answers are then as long as the site's.
 *
 * @throws {Error} When it does not happen within 20 seconds.
 */
export async function waitUntilMeasured(port: number, site: CoverSite, signer: HelloSigner): Promise<void> {
  const { encryptedLengths } = site.flight;
  const wanted = encryptedLengths.reduce((sum, length) => sum + length, 5 * (encryptedLengths.length - 1));
  let length = 0;
  for (const startedAt = performance.now(); performance.now() - startedAt < MEASURED_WITHIN_MS; ) {
    const hello = makeHello(signer);
    const { bytes } = await ask(port, hello, FLIGHT_RECORDS);
    if (!isSigned(bytes, hello, signer.key)) throw new Error("the proxy does not answer a client's hello");
    length = measureFlight(bytes).encryptedLengths[0] ?? 0;
    if (Math.abs(length - wanted) <= LENGTH_SPREAD) return;
    await Bun.sleep(100);
  }
  throw new Error(`the proxy's answers have ${length} encrypted bytes, those of its site ${wanted}`);
}
