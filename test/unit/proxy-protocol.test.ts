import { describe, expect, test } from "bun:test";
import { HandshakeError, ProxyHeaderError } from "../../src/core/errors.ts";
import { measureProxyHeader } from "../../src/protocol/proxy-protocol.ts";

const SIGNATURE = "0d0a0d0a000d0a515549540a";

function line(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function wire(...hex: readonly string[]): Uint8Array {
  return Uint8Array.fromHex(hex.join("").replaceAll(" ", ""));
}

/** The header of version 2 with this after its signature. */
function v2(...hex: readonly string[]): Uint8Array {
  return wire(SIGNATURE, ...hex);
}

function errorOf(bytes: Uint8Array): ProxyHeaderError {
  try {
    measureProxyHeader(bytes);
  } catch (error) {
    if (error instanceof ProxyHeaderError) return error;
    throw error;
  }
  throw new Error(`It is understood: ${bytes.toHex()}`);
}

function why(bytes: Uint8Array): string {
  return errorOf(bytes).why;
}

function sourceOf(bytes: Uint8Array): string | undefined {
  const progress = measureProxyHeader(bytes);
  if (progress.kind !== "whole") throw new Error(`${progress.needed} bytes are needed`);
  return progress.source && `${progress.source.address} ${progress.source.port}`;
}

function neededAfter(bytes: Uint8Array): number {
  const progress = measureProxyHeader(bytes);
  if (progress.kind === "whole") throw new Error(`It is whole: ${bytes.toHex()}`);
  return progress.needed;
}

const IPV6 = "20010db8 00000000 00000000 00000001";
const OTHER_IPV6 = "20010db8 00000000 00000000 00000002";

describe("measureProxyHeader()", () => {
  test("reads a line of version 1 and leaves what follows", () => {
    const text = "PROXY TCP4 192.0.2.7 203.0.113.5 56324 443\r\n";
    for (const after of ["", "\r\n", "PROXY ", "\x16\x03\x01"]) {
      expect(measureProxyHeader(line(text + after))).toEqual({
        kind: "whole",
        length: 44,
        version: 1,
        source: { address: "192.0.2.7", port: 56_324 },
      });
    }
  });

  test("reads a header of version 2 and leaves what follows", () => {
    const header = v2("21 11 000c", "c0000207 cb007105 dc04 01bb");
    for (const after of ["", "0d0a0d0a", "160301"]) {
      expect(measureProxyHeader(wire(header.toHex(), after))).toEqual({
        kind: "whole",
        length: 28,
        version: 2,
        source: { address: "192.0.2.7", port: 56_324 },
      });
    }
  });

  test("reads a header that is a view into the middle of a larger buffer", () => {
    const header = v2("21 11 000c", "c0000207 cb007105 dc04 01bb");
    const larger = new Uint8Array(100).fill(0x5a);
    larger.set(header, 31);
    expect(sourceOf(larger.subarray(31))).toBe("192.0.2.7 56324");
  });

  test("calls it missing when the connection begins with something else", () => {
    expect(why(line("GET / HTTP/1.1\r\n"))).toBe("missing");
    expect(why(line("G"))).toBe("missing");
    expect(why(line("PROXX"))).toBe("missing");
    expect(why(line("PROXY\t"))).toBe("missing");
    expect(why(line("proxy TCP4"))).toBe("missing");
    expect(why(wire("16030100"))).toBe("missing");
    expect(why(wire("0d0a0d0a00", "0d0a", "515549540d"))).toBe("missing");
    expect(why(wire("0d0a0d0a01"))).toBe("missing");
    expect(why(new Uint8Array(64))).toBe("missing");
  });

  test("throws an error of the handshake with a code, a reason and none of the bytes", () => {
    const missing = errorOf(line("SSH-2.0-x"));
    expect(missing).toBeInstanceOf(HandshakeError);
    expect(missing.code).toBe("BAD_PROXY_HEADER");
    expect(missing.message).toMatch(/missing/);
    expect(missing.message).not.toContain("SSH");
    const malformed = errorOf(line("PROXY EVIL 1"));
    expect(malformed.why).toBe("malformed");
    expect(malformed.message).toMatch(/malformed/);
    expect(malformed.message).not.toContain("EVIL");
    expect(errorOf(line("PROXY TCP4 192.0.2.7\r\n")).message).toContain(
      "1 field follows its protocol, not 4",
    );
    expect(errorOf(line("PROXY TCP4 192.0.2.7 192.0.2.8\r\n")).message).toContain(
      "2 fields follow its protocol",
    );
  });

  test("needs the shortest header that can come of what is there", () => {
    expect(neededAfter(new Uint8Array(0))).toBe(15);
    expect(neededAfter(line("P"))).toBe(15);
    expect(neededAfter(line("PROXY TCP4"))).toBe(15);
    expect(neededAfter(line("PROXY TCP4 "))).toBe(32);
    expect(neededAfter(line("PROXY TCP6 "))).toBe(22);
    expect(neededAfter(line("PROXY TCP4 192.0.2.7 203.0.113.5 56324 44"))).toBe(43);
    expect(neededAfter(line("PROXY TCP4 192.0.2.7 203.0.113.5 56324 443"))).toBe(44);
    expect(neededAfter(line("PROXY TCP4 192.0.2.7 203.0.113.5 56324 443\r"))).toBe(44);
    expect(neededAfter(line("PROXY UNKNOWN\r"))).toBe(15);
    expect(neededAfter(line("PROXY UNKNOWN what"))).toBe(20);
    expect(neededAfter(wire("0d"))).toBe(16);
    expect(neededAfter(v2(""))).toBe(16);
    expect(neededAfter(v2("21 11 00"))).toBe(16);
    expect(neededAfter(v2("21 11 000c"))).toBe(28);
    expect(neededAfter(v2("21 21 0100", "00"))).toBe(272);
  });

  test.each([
    ["a line", line("PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n")],
    ["the longest line", line(`PROXY UNKNOWN${" ".repeat(92)}\r\n`)],
    ["TCP4", v2("21 11 000c", "c0000207 cb007105 dc04 01bb")],
    ["LOCAL", v2("20 00 0000")],
    ["TCP6 with TLVs", v2("21 21 002f", IPV6, OTHER_IPV6, "dc04 01bb", "04 0002 0000", "e0 0003 010203")],
  ])("finds %s unfinished up to its last byte, when it comes byte by byte", (_, header) => {
    for (let length = 0; length < header.length; length += 1) {
      const needed = neededAfter(header.subarray(0, length));
      expect(needed).toBeGreaterThan(length);
      expect(needed).toBeLessThanOrEqual(header.length);
    }
    expect(measureProxyHeader(header)).toMatchObject({ kind: "whole", length: header.length });
  });
});

describe("measureProxyHeader() on version 1", () => {
  test("reads addresses of IPv6 in any spelling, and gives them in one", () => {
    const spellings = [
      ["2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
      ["2001:0db8::0001", "2001:db8::1"],
      ["::", "::"],
      ["::1", "::1"],
      ["fe80::", "fe80::"],
      ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
      ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
      ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
      ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
      ["::ffff:192.0.2.7", "192.0.2.7"],
      ["::FFFF:c000:0207", "192.0.2.7"],
      ["::192.0.2.7", "::c000:207"],
      ["64:ff9b::192.0.2.7", "64:ff9b::c000:207"],
    ];
    for (const [spelling, canonical] of spellings) {
      expect(sourceOf(line(`PROXY TCP6 ${spelling} ::1 0 65535\r\n`))).toBe(`${canonical} 0`);
    }
  });

  test("accepts the highest numbers and the longest lines of each family", () => {
    const tcp4 = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    expect(measureProxyHeader(line(tcp4))).toMatchObject({ kind: "whole", length: 56 });
    const highest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    const tcp6 = `PROXY TCP6 ${highest} ${highest} 65535 65535\r\n`;
    expect(measureProxyHeader(line(tcp6))).toMatchObject({ kind: "whole", length: 104 });
    const unknown = `PROXY UNKNOWN ${highest} ${highest} 65535 65535\r\n`;
    expect(measureProxyHeader(line(unknown))).toMatchObject({ kind: "whole", length: 107 });
  });

  test("takes nothing from UNKNOWN, whatever its line says", () => {
    const whats = [
      "",
      " ",
      " TCP4 1.2.3.4 5.6.7.8 1 2",
      " 192.0.2.7 192.0.2.8 1 2",
      " \xff\0 %s",
      " \r \n \r",
    ];
    for (const what of whats) {
      const text = `PROXY UNKNOWN${what}\r\n`;
      const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
      expect(measureProxyHeader(bytes)).toEqual({
        kind: "whole",
        length: text.length,
        version: 1,
        source: undefined,
      });
    }
  });

  test("refuses a line that does not end within 107 bytes, as soon as it cannot any more", () => {
    const start = "PROXY UNKNOWN ";
    expect(neededAfter(line(start + "x".repeat(91)))).toBe(107);
    expect(neededAfter(line(`${start}${"x".repeat(91)}\r`))).toBe(107);
    expect(why(line(start + "x".repeat(92)))).toBe("malformed");
    expect(why(line(`${start}${"x".repeat(92)}\r\n`))).toBe("malformed");
    expect(why(line(start + "x".repeat(60_000)))).toBe("malformed");
    expect(why(line(`PROXY TCP4 ${"1".repeat(44)}`))).toBe("malformed");
  });

  test.each([
    "PROXY tcp4 192.0.2.7 192.0.2.8 1 2\r\n",
    "PROXY TCP5 192.0.2.7 192.0.2.8 1 2\r\n",
    "PROXY UDP4 192.0.2.7 192.0.2.8 1 2\r\n",
    "PROXY  TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
    "PROXY TCP4  192.0.2.7 192.0.2.8 1 2\r\n",
    "PROXY TCP4 192.0.2.7  192.0.2.8 1 2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1  2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1 2 \r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1 2 3\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1 \r\n",
    "PROXY TCP4\r\n",
    "PROXY \r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1 2\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1 2\rx",
    "PROXY TCP4\t192.0.2.7 192.0.2.8 1 2\r\n",
    "PROXY TCP4 192.0.2.07 192.0.2.8 1 2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.08 1 2\r\n",
    "PROXY TCP4 192.0.2.256 192.0.2.8 1 2\r\n",
    "PROXY TCP4 192.0.2 192.0.2.8 1 2\r\n",
    "PROXY TCP4 0x7f.0.0.1 192.0.2.8 1 2\r\n",
    "PROXY TCP4 ::1 ::1 1 2\r\n",
    "PROXY TCP4 192.0.2.7 ::1 1 2\r\n",
    "PROXY TCP4 example.org 192.0.2.8 1 2\r\n",
    "PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n",
    "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "PROXY TCP6 [::1] ::1 1 2\r\n",
    "PROXY TCP6 ::1::2 ::1 1 2\r\n",
    "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n",
    "PROXY TCP6 00001::1 ::1 1 2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 65536 2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1 65536\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 01 2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 00 2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 +1 2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 -1 2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1e3 2\r\n",
    "PROXY TCP4 192.0.2.7 192.0.2.8 1.0 2\r\n",
    "PROXY UNKNOWNS\r\n",
    "PROXY UNKNOWN\rx\r\n",
    "PROXY UNKNOWN\n",
  ])("refuses %j", (text) => {
    expect(why(line(text))).toBe("malformed");
  });

  test.each([
    "PROXY X",
    "PROXY TCP4X",
    "PROXY TCP4  ",
    "PROXY TCP4 x",
    "PROXY TCP4 1:",
    "PROXY TCP4 1.2.3 ",
    "PROXY TCP4 1.2.3.4 5.6.7.8 00",
    "PROXY TCP4 1.2.3.4 5.6.7.8 65536",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1\r",
    "PROXY TCP6 g",
  ])("refuses %j before its line is over", (text) => {
    expect(why(line(text))).toBe("malformed");
  });
});

describe("measureProxyHeader() on version 2", () => {
  test("reads TCP over IPv6, and IPv4 within it as IPv4", () => {
    expect(sourceOf(v2("21 21 0024", IPV6, OTHER_IPV6, "dc04 01bb"))).toBe("2001:db8::1 56324");
    const mapped = "00000000 00000000 0000ffff c0000207";
    expect(sourceOf(v2("21 21 0024", mapped, mapped, "ffff 0000"))).toBe("192.0.2.7 65535");
  });

  test("takes no client from LOCAL, UNSPEC and UNIX", () => {
    const whole = { kind: "whole", version: 2, source: undefined };
    expect(measureProxyHeader(v2("20 00 0000"))).toMatchObject({ ...whole, length: 16 });
    expect(measureProxyHeader(v2("21 00 0000"))).toMatchObject({ ...whole, length: 16 });
    const unix = v2("21 31 00d8", "2f".repeat(216));
    expect(measureProxyHeader(unix)).toMatchObject({ ...whole, length: 232 });
  });

  test("skips what comes with LOCAL and UNSPEC unread", () => {
    const whole = { kind: "whole", version: 2, source: undefined };
    const addresses = "c0000207 cb007105 dc04 01bb";
    expect(measureProxyHeader(v2("20 11 000c", addresses))).toMatchObject({ ...whole, length: 28 });
    expect(measureProxyHeader(v2("20 12 0001", "ff"))).toMatchObject({ ...whole, length: 17 });
    expect(measureProxyHeader(v2("20 ff 0000"))).toMatchObject({ ...whole, length: 16 });
    expect(measureProxyHeader(v2("21 00 0002", "ffff"))).toMatchObject({ ...whole, length: 18 });
  });

  test("refuses every other version and command", () => {
    for (let byte = 0; byte < 256; byte += 1) {
      if (byte === 0x20 || byte === 0x21) continue;
      expect(why(Uint8Array.of(...v2(""), byte))).toBe("malformed");
    }
  });

  test("refuses every other family and transport, datagrams among them", () => {
    for (let byte = 0; byte < 256; byte += 1) {
      if ([0x00, 0x11, 0x21, 0x31].includes(byte)) continue;
      expect(why(Uint8Array.of(...v2("21"), byte))).toBe("malformed");
    }
  });

  test("refuses a length that its addresses do not fit into, before they come", () => {
    expect(why(v2("21 11 000b"))).toBe("malformed");
    expect(why(v2("21 21 0023"))).toBe("malformed");
    expect(why(v2("21 31 00d7"))).toBe("malformed");
    expect(why(v2("21 11 0000"))).toBe("malformed");
  });

  test("refuses more than 4096 bytes, before they come", () => {
    expect(neededAfter(v2("21 11 1000"))).toBe(4112);
    expect(why(v2("21 11 1001"))).toBe("malformed");
    expect(why(v2("20 00 ffff"))).toBe("malformed");
  });

  test("ignores TLVs that it does not know", () => {
    const tlvs = "01 0002 6832  02 000b 6578616d706c652e6f7267  04 0000  30 0001 78  ff 0000";
    const length = (12 + wire(tlvs).length).toString(16).padStart(4, "0");
    expect(sourceOf(v2("21 11", length, "c0000207 cb007105 dc04 01bb", tlvs))).toBe("192.0.2.7 56324");
  });

  test("refuses TLVs that do not end where the header does", () => {
    const addresses = "c0000207 cb007105 dc04 01bb";
    expect(why(v2("21 11 000d", addresses, "04"))).toBe("malformed");
    expect(why(v2("21 11 000e", addresses, "0400"))).toBe("malformed");
    expect(why(v2("21 11 000f", addresses, "040001", "00"))).toBe("malformed");
    expect(why(v2("21 11 0013", addresses, "040002", "0000", "0500"))).toBe("malformed");
  });

  const CHECKED = ["c0000207 cb007105 dc04 01bb", "03 0004"];
  /** Both by the instruction `crc32` of SSE 4.2, over the header with zeros in this place. */
  const CHECKSUM = "a5ae4457";
  const CHECKSUM_BEFORE_NOOP = "2553758f";

  test("accepts a checksum that is right, wherever it stands", () => {
    expect(sourceOf(v2("21 11 0013", ...CHECKED, CHECKSUM))).toBe("192.0.2.7 56324");
    expect(sourceOf(v2("21 11 0016", ...CHECKED, CHECKSUM_BEFORE_NOOP, "04 0000"))).toBe("192.0.2.7 56324");
  });

  test("refuses a checksum when any bit of the header is another", () => {
    const right = v2("21 11 0013", ...CHECKED, CHECKSUM);
    for (let bit = 16 * 8; bit < right.length * 8; bit += 1) {
      const at = bit >> 3;
      if (at >= 28 && at < 31) continue; // then it is no checksum any more
      const changed = right.slice();
      changed[at] = (changed[at] ?? 0) ^ (1 << (bit & 7));
      expect(why(changed)).toBe("malformed");
    }
  });

  test("refuses a checksum of another length, or a second one", () => {
    const [addresses = ""] = CHECKED;
    expect(why(v2("21 11 0012", addresses, "03 0003 000000"))).toBe("malformed");
    expect(why(v2("21 11 0014", addresses, "03 0005 0000000000"))).toBe("malformed");
    expect(why(v2("21 11 001a", ...CHECKED, CHECKSUM, "03 0004", CHECKSUM))).toBe("malformed");
  });
});
