import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { MtprotoServer, STUB_ERROR } from "../support/mtproto-server.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { REAL_CLIENTS } from "../support/real-clients.ts";
import { StubDc } from "../support/stub-dc.ts";

/** Repeated once: of 256 keys one begins with a zero, which these clients drop. */
const TEST_OPTIONS = { timeout: 60_000, retry: 1 } as const;

let stub: StubDc;
let proxy: ProxyProcess;
let server: MtprotoServer;

beforeAll(async () => {
  stub = await StubDc.start();
  proxy = await ProxyProcess.start({ stub });
});

afterAll(async () => {
  await proxy[Symbol.asyncDispose]();
  await stub[Symbol.asyncDispose]();
});

beforeEach(() => {
  stub.reset();
  server = new MtprotoServer();
  stub.onPacket = server.onPacket;
});

for (const client of REAL_CLIENTS) {
  describe(client.name, () => {
    for (const form of ["plain", "dd"] as const) {
      it(
        `agrees on a key and makes a call through a ${form} secret`,
        async () => {
          const secret = (form === "dd" ? "dd" : "") + proxy.secret.toHex();
          await expect(client.call({ port: proxy.port, secret })).rejects.toThrow(STUB_ERROR);
          expect(server.progress.keys).toBeGreaterThan(0);
          expectCleanPackets(client.transport(form));
        },
        TEST_OPTIONS,
      );
    }
  });
}

function expectCleanPackets(transport: string): void {
  expect(stub.connections.length).toBeGreaterThan(0);
  for (const connection of stub.connections) {
    expect(connection.init?.transport ?? transport).toBe(transport);
    expect(connection.violations).toEqual([]);
  }
}
