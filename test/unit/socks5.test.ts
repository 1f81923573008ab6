import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import { ByteReader } from "../../src/channel/byte-reader.ts";
import { parseOutboundProxy } from "../../src/config/outbound-proxy.ts";
import { RouteError } from "../../src/core/errors.ts";
import { openSocks5Tunnel } from "../../src/net/socks5.ts";
import { memoryChannelPair, RecordingSink } from "../support/memory-channel.ts";

const NO_AUTHENTICATION = "0500";
const OK = "05000001000000000000";
const TARGET = { host: "example.org", port: 443 };
const never = new AbortController().signal;

/** A tunnel that is being asked for, and the proxy's end of the connection. */
function ask(options: { proxy?: string; target?: typeof TARGET; signal?: AbortSignal } = {}) {
  const { proxy = "socks5://h", target = TARGET, signal = never } = options;
  const [ours, theirs] = memoryChannelPair(1 << 20);
  const request = new RecordingSink();
  theirs.attach(request);
  const reader = new ByteReader(ours);
  const opening = openSocks5Tunnel(ours, reader, parseOutboundProxy(proxy, undefined), target, signal);
  opening.catch(() => {}); // looked at later
  const answer = (hex: string): void => theirs.write(Buffer.from(hex, "hex"));
  return { theirs, request, reader, opening, answer };
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

async function refusal(answers: string, proxy = "socks5://h"): Promise<RouteError> {
  const { opening, answer } = ask({ proxy });
  answer(answers);
  const error: unknown = await opening.then(
    () => new Error("it opened"),
    (caught: unknown) => caught,
  );
  if (error instanceof RouteError) return error;
  throw error;
}

describe("openSocks5Tunnel()", () => {
  test("sends the name, and leaves what follows the answer to the reader", async () => {
    const { request, reader, opening, answer } = ask();
    answer(`${NO_AUTHENTICATION}${OK}0102030405`);
    await opening;
    await request.until(({ length }) => length >= 3 + 7 + 11);
    expect(hexOf(request.bytes)).toBe(
      `050100${"05010003"}0b${Buffer.from("example.org").toString("hex")}01bb`,
    );
    expect(hexOf(reader.rest())).toBe("0102030405");
  });

  test.each([
    ["192.0.2.255", "01c00002ff"],
    ["2001:db8::1", "0420010db8000000000000000000000001"],
    ["::", "0400000000000000000000000000000000"],
    ["::1", "0400000000000000000000000000000001"],
    ["1::", "0400010000000000000000000000000000"],
    ["1:2:3:4:5:6:7:8", "0400010002000300040005000600070008"],
    ["::ffff:192.0.2.1", "0400000000000000000000ffffc0000201"],
    ["64:ff9b::192.0.2.33", "040064ff9b0000000000000000c0000221"],
    ["fe80::1%eth0", "04fe800000000000000000000000000001"],
  ])("sends %s as an address", async (host, expected) => {
    expect(isIP(host)).not.toBe(0);
    const { request, opening, answer } = ask({ target: { host, port: 0x1234 } });
    answer(NO_AUTHENTICATION + OK);
    await opening;
    await request.until(({ length }) => length >= 3 + 3 + expected.length / 2 + 2);
    expect(hexOf(request.bytes)).toBe(`050100050100${expected}1234`);
  });

  test("authenticates with user and password when the proxy wants that", async () => {
    const { request, opening, answer } = ask({ proxy: "socks5://u%C3%A9:pw@h" });
    answer(`0502${"0100"}${OK}`);
    await opening;
    await request.until(({ length }) => length > 20);
    expect(hexOf(request.bytes)).toStartWith(`05020002${"0103"}75c3a9${"02"}7077${"05010003"}`);
  });

  test("keeps its credentials to itself when the proxy wants none", async () => {
    const { request, opening, answer } = ask({ proxy: "socks5://user:hunter2@h" });
    answer(NO_AUTHENTICATION + OK);
    await opening;
    await request.until(({ length }) => length > 15);
    expect(Buffer.from(request.bytes).toString("latin1")).not.toContain("hunter2");
  });

  test.each([
    ["an IPv4 address", OK],
    ["an IPv6 address", `05000004${"00".repeat(18)}`],
    ["a name", `0500000305${"68656c6c6f"}0000`],
    ["an empty name", "05000003000000"],
  ])("reads an answer with %s, also byte by byte", async (_, reply) => {
    const { theirs, reader, opening } = ask();
    const bytes = Buffer.from(`${NO_AUTHENTICATION}${reply}aabb`, "hex");
    for (const byte of bytes) theirs.write(Uint8Array.of(byte));
    await opening;
    expect(hexOf(await reader.read(2, never))).toBe("aabb");
  });

  test.each([
    [1, "PROXY"],
    [2, "PROXY"],
    [3, "UNREACHABLE"],
    [4, "UNREACHABLE"],
    [5, "REFUSED"],
    [6, "TIMEOUT"],
    [7, "PROXY"],
    [8, "PROXY"],
    [9, "PROXY"],
    [255, "PROXY"],
  ])("says what reply %d means: %s", async (reply, code) => {
    const error = await refusal(`0500${"05"}${reply.toString(16).padStart(2, "0")}`);
    expect(error.code).toBe(code as RouteError["code"]);
    expect(error.message).toContain(`SOCKS5 reply ${reply}`);
  });

  test.each([
    ["05ff", "socks5://h", /wants a user and a password/],
    ["05ff", "socks5://u:hunter2@h", /accepts no user and password/],
    ["0502", "socks5://h", /chose authentication 0x02/],
    ["0501", "socks5://u:p@h", /chose authentication 0x01/],
    ["05020101", "socks5://u:hunter2@h", /refused the user and the password/],
    ["485454502f", "socks5://h", /does not speak SOCKS5.*HTTP proxy/],
    ["0400", "socks5://h", /does not speak SOCKS5/],
    ["05000400", "socks5://h", /does not speak SOCKS5/],
    ["050005000002", "socks5://h", /unknown type of address/],
  ])("throws PROXY on %s", async (answers, proxy, words) => {
    const error = await refusal(answers, proxy);
    expect(error.code).toBe("PROXY");
    expect(error.message).toMatch(words);
    expect(error.message).not.toContain("hunter2");
  });

  test("throws DNS for a name that the protocol cannot carry, before it sends anything", async () => {
    const { request, opening } = ask({ target: { host: "a".repeat(256), port: 1 } });
    await expect(opening).rejects.toMatchObject({ code: "DNS" });
    expect(request.calls).toEqual([]);
  });

  const whole = `${NO_AUTHENTICATION}${OK}`;
  const parts = Array.from({ length: whole.length / 2 }, (_, bytes) => whole.slice(0, bytes * 2));

  test.each(parts)("throws PROXY when the proxy closes after %p", async (part) => {
    const { theirs, opening, answer } = ask();
    if (part !== "") answer(part);
    theirs.end();
    await expect(opening).rejects.toMatchObject({
      code: "PROXY",
      message: expect.stringMatching(/closed the connection/),
    });
  });

  test.each(parts)("throws TIMEOUT when it is given up after %p", async (part) => {
    const stop = new AbortController();
    const { request, opening, answer } = ask({ signal: stop.signal });
    if (part !== "") answer(part);
    await request.until(({ length }) => length > 0);
    stop.abort();
    await expect(opening).rejects.toMatchObject({ code: "TIMEOUT" });
  });
});
