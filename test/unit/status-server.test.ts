import { afterEach, describe, expect, test } from "bun:test";
import { StartError } from "../../src/core/errors.ts";
import type { HttpServer } from "../../src/observe/http-server.ts";
import type { Readiness, StatusReport } from "../../src/observe/status-report.ts";
import { startStatusServer } from "../../src/observe/status-server.ts";
import { parseMetrics } from "../support/prometheus.ts";
import { sampleReport } from "../support/status-report.ts";

const running: HttpServer[] = [];
afterEach(() => {
  for (const server of running.splice(0)) server.stop();
});

interface Running {
  readonly port: number;
  /** How often a report was asked for. */
  readonly reports: () => number;
  get(path: string, init?: RequestInit): Promise<Response>;
}

function start(
  options: {
    readonly host?: string;
    readonly token?: string;
    readonly report?: () => Promise<StatusReport>;
    readonly ready?: () => Readiness;
  } = {},
): Running {
  const { host = "127.0.0.1", token } = options;
  const { report = async () => sampleReport(), ready = () => ({ ok: true, reason: "serving" }) } = options;
  let reports = 0;
  const source = {
    report: () => {
      reports += 1;
      return report();
    },
    ready,
  };
  const server = startStatusServer({ host, port: 0, token, source });
  running.push(server);
  return {
    port: server.port,
    reports: () => reports,
    get: (path, init) => fetch(`http://127.0.0.1:${server.port}${path}`, init),
  };
}

/** What the server answers to `text`, until it closes. */
async function ask(port: number, text: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let heard = "";
  await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      open: (socket) => void socket.write(text),
      data: (_, bytes) => {
        heard += bytes.toString();
      },
      close: () => resolve(heard),
    },
  });
  return promise;
}

const PATHS = ["/metrics", "/stats", "/api/status", "/"];
const OPEN_PATHS = ["/healthz", "/readyz"];

describe("startStatusServer()", () => {
  test("answers /metrics with Prometheus' type and text", async () => {
    const answer = await start().get("/metrics");
    expect(answer.status).toBe(200);
    expect(answer.headers.get("Content-Type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(parseMetrics(await answer.text()).has("tgws_connections_total")).toBe(true);
  });

  test("answers /stats with lines of a key and a value", async () => {
    const answer = await start().get("/stats");
    expect(answer.headers.get("Content-Type")).toBe("text/plain; charset=utf-8");
    expect(await answer.text()).toContain("total_special_connections\t7\n");
  });

  test("answers /api/status with the report as it is", async () => {
    const report = sampleReport();
    const answer = await start({ report: async () => report }).get("/api/status");
    expect(answer.headers.get("Content-Type")).toBe("application/json; charset=utf-8");
    expect(await answer.json()).toEqual(JSON.parse(JSON.stringify(report)));
  });

  test("answers /healthz, and /readyz with whether it is", async () => {
    let ready: Readiness = { ok: true, reason: "serving" };
    const { get } = start({ ready: () => ready });
    expect(await (await get("/healthz")).text()).toBe("ok\n");
    const yes = await get("/readyz");
    expect([yes.status, await yes.text()]).toEqual([200, "serving\n"]);
    ready = { ok: false, reason: "stopping" };
    const no = await get("/readyz");
    expect([no.status, await no.text()]).toEqual([503, "stopping\n"]);
  });

  test("lists its pages at /, and with 404 for what there is not", async () => {
    const { get } = start();
    const [index, missing] = [await get("/"), await get("/favicon.ico")];
    expect([index.status, missing.status]).toEqual([200, 404]);
    expect(await index.text()).toBe("tgws: /metrics /stats /api/status /healthz /readyz\n");
  });

  test.each([...PATHS, ...OPEN_PATHS])("answers HEAD %s without a body", async (path) => {
    const { port } = start();
    const heard = await ask(port, `HEAD ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`);
    expect(heard).toStartWith("HTTP/1.1 200 OK\r\n");
    expect(heard).toEndWith("\r\n\r\n");
    expect(heard).toMatch(/content-length: [1-9]/i);
  });

  test.each(["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])("says 405 to %s", async (method) => {
    const answer = await start().get("/metrics", { method });
    expect(answer.status).toBe(405);
    expect(answer.headers.get("Allow")).toBe("GET, HEAD");
  });

  test("forbids caches, guesses of the type, and pages of others", async () => {
    const { get } = start();
    for (const path of [...PATHS, ...OPEN_PATHS, "/none"]) {
      const { headers } = await get(path, { headers: { Origin: "https://example.org" } });
      expect(headers.get("Cache-Control")).toBe("no-store");
      expect(headers.get("X-Content-Type-Options")).toBe("nosniff");
      expect(headers.get("Access-Control-Allow-Origin")).toBeNull();
    }
  });

  test("makes one report for many who ask at once", async () => {
    const { get, reports } = start();
    const answers = await Promise.all(Array.from({ length: 50 }, (_, at) => get(PATHS[at % 3] ?? "/")));
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    expect(reports()).toBeLessThanOrEqual(10); // one, unless the machine is slow
  });

  test("makes a new one a quarter of a second later", async () => {
    const { get, reports } = start();
    await get("/metrics");
    await Bun.sleep(260);
    await get("/metrics");
    expect(reports()).toBe(2);
  });

  test("says 503 with the reason when there is no report, and goes on", async () => {
    let fail = true;
    const { get } = start({
      report: async () => {
        if (fail) throw new Error("no worker answers");
        return sampleReport();
      },
    });
    const answer = await get("/metrics");
    expect([answer.status, await answer.text()]).toEqual([503, "Cannot tell: no worker answers\n"]);
    fail = false;
    await Bun.sleep(260);
    expect((await get("/metrics")).status).toBe(200);
  });
});

describe("startStatusServer(), with a token", () => {
  const token = "s3cret-token";

  test.each(PATHS)("says 401 for %s without it", async (path) => {
    const { get, reports } = start({ token });
    for (const init of [
      {},
      { headers: { Authorization: "Bearer wrong" } },
      { headers: { Authorization: `Basic ${token}` } },
      { headers: { Authorization: `Bearer ${token}x` } },
      { headers: { Authorization: "Bearer " } },
    ]) {
      const answer = await get(path, init);
      expect(answer.status).toBe(401);
      expect(answer.headers.get("WWW-Authenticate")).toBe('Bearer realm="tgws"');
    }
    expect((await get(`${path}?token=`)).status).toBe(401);
    expect((await get(`${path}?token=wrong`)).status).toBe(401);
    expect(reports()).toBe(0);
  });

  test.each(PATHS)("answers %s with it, in the header or in the address", async (path) => {
    const { get } = start({ token });
    expect((await get(path, { headers: { Authorization: `Bearer ${token}` } })).status).toBe(200);
    expect((await get(path, { headers: { Authorization: `bearer ${token}` } })).status).toBe(200);
    expect((await get(`${path}?token=${token}`)).status).toBe(200);
  });

  test("does not say which pages there are to who does not know it", async () => {
    const { get } = start({ token });
    expect((await get("/none")).status).toBe(401);
  });

  test.each(OPEN_PATHS)("answers %s without it", async (path) => {
    expect((await start({ token }).get(path)).status).toBe(200);
  });
});

describe("startStatusServer(), whom it answers", () => {
  const statusFor = async (port: number, host: string): Promise<string> =>
    (await ask(port, `GET /healthz HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).slice(9, 12);

  test("answers on loopback only for this machine's names, so that no page can get at it", async () => {
    const { port } = start();
    for (const host of ["localhost", `localhost:${port}`, "127.0.0.1", "127.1.2.3:80", "[::1]:80"])
      expect(await statusFor(port, host)).toBe("200");
    for (const host of ["evil.example", "127.0.0.1.evil.example", "192.0.2.1", "localhost.evil.example:80"])
      expect(await statusFor(port, host)).toBe("403");
  });

  test("answers elsewhere for whatever it is called", async () => {
    const { port } = start({ host: "0.0.0.0" });
    for (const host of ["status.example", "192.0.2.1:9100"]) expect(await statusFor(port, host)).toBe("200");
  });

  test("survives a host that is no host", async () => {
    const { port } = start();
    for (const host of [
      "a b",
      "[",
      "%",
      "http://x",
      "\u00ff",
      "@",
      "a@127.0.0.1",
      "",
      "127.0.0.1/x",
      "a:b:c",
    ]) {
      expect(await statusFor(port, host)).toBe("400");
    }
    expect(await statusFor(port, "localhost")).toBe("200");
  });
});

describe("startStatusServer(), where it cannot listen", () => {
  const failure = (host: string, port: number): unknown => {
    try {
      const source = { report: async () => sampleReport(), ready: () => ({ ok: true, reason: "" }) };
      running.push(startStatusServer({ host, port, token: undefined, source }));
      return undefined;
    } catch (error) {
      return error;
    }
  };

  test("throws PORT_IN_USE with another port to try", () => {
    const { port } = start();
    const error = failure("127.0.0.1", port);
    expect(error).toBeInstanceOf(StartError);
    expect(error).toMatchObject({
      code: "PORT_IN_USE",
      message: `Cannot listen on 127.0.0.1:${port} for --status: the port is in use`,
      hint: `choose another one: --status 127.0.0.1:${port + 1}`,
    });
  });

  test("throws BAD_ADDRESS for an address that is not this machine's", () => {
    expect(failure("192.0.2.1", 9_100)).toMatchObject({
      code: "BAD_ADDRESS",
      message:
        "Cannot listen on 192.0.2.1:9100 for --status: this machine has no such address (EADDRNOTAVAIL)",
      hint: "use --status 127.0.0.1:9100 for this machine only",
    });
  });
});
