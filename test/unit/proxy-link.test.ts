import { describe, expect, test } from "bun:test";
import { formatProxyLinks } from "../../src/protocol/mtproto/proxy-link.ts";

const key = new Uint8Array(16).fill(0xab);

describe("formatProxyLinks()", () => {
  test("writes both links in the form that apps take", () => {
    const { tg, https } = formatProxyLinks({ host: "192.168.1.2", port: 1443, key, form: "padded" });
    expect(tg).toBe(`tg://proxy?server=192.168.1.2&port=1443&secret=dd${"ab".repeat(16)}`);
    expect(https).toBe(`https://t.me/proxy?server=192.168.1.2&port=1443&secret=dd${"ab".repeat(16)}`);
  });

  test("puts the domain of fake TLS into the secret", () => {
    const { tg, https } = formatProxyLinks({
      host: "192.0.2.7",
      port: 443,
      key,
      form: { fakeTls: "example.com" },
    });
    const query = `server=192.0.2.7&port=443&secret=ee${"ab".repeat(16)}6578616d706c652e636f6d`;
    expect({ tg, https }).toEqual({ tg: `tg://proxy?${query}`, https: `https://t.me/proxy?${query}` });
  });

  test.each(["proxy.example.org", "2001:db8::1", "fe80::1%eth0", "a&b=c"])(
    "carries the host %s through a URL",
    (host) => {
      const { tg, https } = formatProxyLinks({ host, port: 443, key, form: "plain" });
      for (const link of [tg, https]) {
        const { searchParams } = new URL(link);
        expect(searchParams.get("server")).toBe(host);
        expect(searchParams.get("port")).toBe("443");
        expect(searchParams.get("secret")).toBe("ab".repeat(16));
        expect([...searchParams.keys()]).toEqual(["server", "port", "secret"]);
      }
    },
  );
});
