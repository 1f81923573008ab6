import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const SOURCE = resolve(import.meta.dir, "../../src");

/** What is loaded with a file of `src`, whatever is done then: types, and what is imported by need, are not. */
function loadedWith(file: string): string[] {
  const transpiler = new Bun.Transpiler({ loader: "ts" });
  const found = new Set<string>();
  const visit = (path: string): void => {
    if (found.has(path)) return;
    found.add(path);
    for (const { kind, path: other } of transpiler.scanImports(readFileSync(path, "utf8")))
      if (kind === "import-statement" && other.startsWith(".")) visit(resolve(dirname(path), other));
  };
  visit(join(SOURCE, file));
  return Array.from(found, (path) => relative(SOURCE, path));
}

// A KB of code costs 8 KB of memory for as long as the proxy runs.
test.each([
  ["lists of addresses", "cli/read-address-lists.ts"],
  ["fake TLS", "proxy/fake-tls.ts"],
  ["rates", "proxy/throttled-channel.ts"],
  ["workers", "workers/supervisor.ts"],
  ["users' traffic that is kept", "config/usage-store.ts"],
  ["log files", "observe/file-sink.ts"],
  ["the status server", "observe/status-server.ts"],
  ["probes", "upstream/probe.ts"],
  ["QR codes", "cli/qr-code.ts"],
  ["the C library", "net/libc.ts"],
])("a proxy that serves does not load what is for %s alone", (_, file) => {
  const loaded = loadedWith("cli/serve.ts");
  expect(loaded).toContain("proxy/session.ts");
  expect(loaded).not.toContain(file);
});
